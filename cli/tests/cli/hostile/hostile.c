/*
 * A library that is loaded before all others, and makes calls fail as other systems do. Each variable is the
 * number of the error:
 *
 *   HOSTILE_FOLDER_SYNC    fsync of a folder
 *   HOSTILE_UNNAMED_SYNC   fsync of a file without a name
 *   HOSTILE_OPEN_SYNC      fsync of a file that others than its owner have a right on
 *   HOSTILE_TMPFILE        making a file without a name
 *   HOSTILE_LINK           giving a file a further name
 *   HOSTILE_GETFD          duplicating a descriptor by its number
 *   HOSTILE_CHMOD          setting the rights of an open file
 *
 * All but the first three are refused by the kernel itself (seccomp), since not all callers ask the C library.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int error_of(const char *variable) {
    const char *number = getenv(variable);
    return number ? atoi(number) : 0;
}

int fsync(int descriptor) {
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    struct stat status;
    int error = 0;
    if (fstat(descriptor, &status) == 0) {
        if (S_ISDIR(status.st_mode))
            error = error_of("HOSTILE_FOLDER_SYNC");
        else if (status.st_nlink == 0)
            error = error_of("HOSTILE_UNNAMED_SYNC");
        if (!error && S_ISREG(status.st_mode) && status.st_mode & 077)
            error = error_of("HOSTILE_OPEN_SYNC");
    }
    if (error) {
        errno = error;
        return -1;
    }
    return next(descriptor);
}

static void deny(int call, int flags, int error) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 3),
        /* The third argument, its lower half on little-endian machines. */
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, flags, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    if (!flags) /* whatever the argument is */
        filter[3] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        abort();
}

__attribute__((constructor)) static void begin(void) {
    int error;
    if ((error = error_of("HOSTILE_TMPFILE")))
        deny(SYS_openat, O_TMPFILE & ~O_DIRECTORY, error);
    if ((error = error_of("HOSTILE_LINK")))
        deny(SYS_linkat, 0, error);
    if ((error = error_of("HOSTILE_GETFD")))
        deny(SYS_pidfd_getfd, 0, error);
    if ((error = error_of("HOSTILE_CHMOD")))
        deny(SYS_fchmod, 0, error);
}
