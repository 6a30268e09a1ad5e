/* A PKCS#11 module that stands between its caller and SoftHSM: it counts calls, makes them fail, hang
   or take long as its control file says, and does some things that SoftHSM does not and other
   modules do. Each copy of it, under another name, is a module with a control file of its own.

   Built with -DREAL="SoftHSM's path" and -DLOCK="path of the module with the lock of all copies". */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef unsigned long ul;
/* Functions of fewer arguments do not mind more of them. */
typedef ul (*function)(ul, ul, ul, ul, ul, ul, ul, ul);

/* By the order in the standard's list of functions. */
enum {
    GET_FUNCTION_LIST = 3, GET_SLOT_LIST = 4, GET_MECHANISM_INFO = 8, INIT_TOKEN = 9,
    CLOSE_ALL_SESSIONS = 14, CREATE_OBJECT = 20, DESTROY_OBJECT = 22, GET_ATTRIBUTE_VALUE = 24,
    ENCRYPT_INIT = 29, ENCRYPT = 30, DECRYPT_INIT = 33, DECRYPT = 34, WRAP_KEY = 60, UNWRAP_KEY = 61,
    FUNCTIONS = 68
};
enum { PASS, FAIL, HANG, SLOW };

struct list {
    unsigned char major, minor;
    function of[FUNCTIONS];
};

static struct control {
    unsigned calls[FUNCTIONS], mode[FUNCTIONS], code[FUNCTIONS], times[FUNCTIONS];
    unsigned hanging, only_closes, encrypts_with_kwp, has_own_iv;
} *control;
static struct list *real, list = {2, 40, {0}};
static pthread_rwlock_t *inside;

struct mechanism { ul type; void *parameter; ul length; };
struct attribute { ul type; void *value; ul length; };

static __thread ul key_of_kwp;

static const ul NO = 0, AES_KEY = 31, SECRET_KEY = 4;
static const unsigned char FALSE_BYTE = 0, TRUE_BYTE = 1;
#define PASSING_KEY \
    {0x0, (void *)&SECRET_KEY, 8}, {0x100, (void *)&AES_KEY, 8}, {0x1, (void *)&FALSE_BYTE, 1}, \
    {0x2, (void *)&TRUE_BYTE, 1}, {0x162, (void *)&TRUE_BYTE, 1}, {0x103, (void *)&FALSE_BYTE, 1}

/* What a token does that encrypts with KWP, by what SoftHSM does, which only wraps keys with it. */
static ul kwp(int decrypts, ul session, ul in, ul length, unsigned char *out, ul *out_length)
{
    struct mechanism mechanism = {0x210a, 0, 0};
    struct attribute template[] = {PASSING_KEY, {0x11, (void *)in, length}};
    ul object, rv, key = key_of_kwp;

    if (!out) {
        *out_length = 64;
        return 0;
    }
    key_of_kwp = 0;
    if (decrypts)
        rv = real->of[UNWRAP_KEY](session, (ul)&mechanism, key, in, length, (ul)template, 6, (ul)&object);
    else
        rv = real->of[CREATE_OBJECT](session, (ul)template, 7, (ul)&object, NO, NO, NO, NO);
    if (rv)
        return rv;
    if (decrypts) {
        struct attribute value = {0x11, out, *out_length};
        rv = real->of[GET_ATTRIBUTE_VALUE](session, object, (ul)&value, 1, NO, NO, NO, NO);
        *out_length = value.length;
    } else {
        rv = real->of[WRAP_KEY](session, (ul)&mechanism, key, object, (ul)out, (ul)out_length, NO, NO);
    }
    real->of[DESTROY_OBJECT](session, object, NO, NO, NO, NO, NO, NO);
    return rv;
}

static ul pass(int n, ul a, ul b, ul c, ul d, ul e, ul f, ul g, ul h)
{
    struct mechanism *mechanism = (void *)b;
    ul rv;

    if (n == INIT_TOKEN) {
        /* A device that is reset asks nobody. */
        real->of[CLOSE_ALL_SESSIONS](a, NO, NO, NO, NO, NO, NO, NO);
        if (control->only_closes)
            return 0;
    }
    if (control->encrypts_with_kwp) {
        if ((n == ENCRYPT_INIT || n == DECRYPT_INIT) && mechanism->type == 0x210a) {
            key_of_kwp = c;
            return 0;
        }
        if ((n == ENCRYPT || n == DECRYPT) && key_of_kwp)
            return kwp(n == DECRYPT, a, b, c, (void *)d, (void *)e);
    }
    if (control->has_own_iv && n == ENCRYPT_INIT && mechanism->type == 0x1087)
        memset(*(void **)mechanism->parameter, control->has_own_iv++, 12);

    rv = real->of[n](a, b, c, d, e, f, g, h);
    if (control->encrypts_with_kwp && n == GET_MECHANISM_INFO && b == 0x210a && !rv)
        ((ul *)c)[2] = 0x300;
    return rv;
}

static ul call(int n, ul a, ul b, ul c, ul d, ul e, ul f, ul g, ul h)
{
    unsigned left;
    ul rv;

    __atomic_add_fetch(&control->calls[n], 1, __ATOMIC_SEQ_CST);
    switch (__atomic_load_n(&control->mode[n], __ATOMIC_SEQ_CST)) {
    case FAIL:
        left = __atomic_load_n(&control->times[n], __ATOMIC_SEQ_CST);
        while (left && !__atomic_compare_exchange_n(&control->times[n], &left, left - 1, 0,
                                                    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
            ;
        if (left)
            return control->code[n];
        break;
    case HANG:
        __atomic_add_fetch(&control->hanging, 1, __ATOMIC_SEQ_CST);
        while (__atomic_load_n(&control->mode[n], __ATOMIC_SEQ_CST) == HANG)
            usleep(1000);
        __atomic_sub_fetch(&control->hanging, 1, __ATOMIC_SEQ_CST);
        break;
    case SLOW:
        usleep(20000);
    }
    /* SoftHSM lists its slots without a lock, and adds to them when it does; and it frees what other
       threads are at work with when a token is initialised or its sessions end. */
    if (n == GET_SLOT_LIST || n == INIT_TOKEN)
        pthread_rwlock_wrlock(inside);
    else
        pthread_rwlock_rdlock(inside);
    rv = pass(n, a, b, c, d, e, f, g, h);
    pthread_rwlock_unlock(inside);
    return rv;
}

#define ONE(n) \
    static ul call##n(ul a, ul b, ul c, ul d, ul e, ul f, ul g, ul h) { return call(n, a, b, c, d, e, f, g, h); }
#define TEN(t) ONE(t##0) ONE(t##1) ONE(t##2) ONE(t##3) ONE(t##4) ONE(t##5) ONE(t##6) ONE(t##7) ONE(t##8) ONE(t##9)
ONE(0) ONE(1) ONE(2) ONE(3) ONE(4) ONE(5) ONE(6) ONE(7) ONE(8) ONE(9)
TEN(1) TEN(2) TEN(3) TEN(4) TEN(5)
ONE(60) ONE(61) ONE(62) ONE(63) ONE(64) ONE(65) ONE(66) ONE(67)
#define TEN_OF(t) call##t##0, call##t##1, call##t##2, call##t##3, call##t##4, call##t##5, call##t##6, call##t##7, call##t##8, call##t##9,
static const function calls[FUNCTIONS] = {
    call0, call1, call2, call3, call4, call5, call6, call7, call8, call9,
    TEN_OF(1) TEN_OF(2) TEN_OF(3) TEN_OF(4) TEN_OF(5)
    call60, call61, call62, call63, call64, call65, call66, call67,
};

ul C_GetFunctionList(struct list **out)
{
    ul (*get)(struct list **);
    char path[4096];
    Dl_info self;
    int file;
    void *module = dlopen(REAL, RTLD_NOW | RTLD_LOCAL), *lock = dlopen(LOCK, RTLD_NOW | RTLD_LOCAL);

    if (!module || !lock || !dladdr((void *)C_GetFunctionList, &self))
        return 5;
    get = (ul (*)(struct list **))dlsym(module, "C_GetFunctionList");
    inside = dlsym(lock, "inside");
    snprintf(path, sizeof path, "%s.control", self.dli_fname);
    file = open(path, O_RDWR);
    control = mmap(0, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (control == MAP_FAILED || get(&real))
        return 5;
    memcpy(list.of, calls, sizeof calls);
    *out = &list;
    return 0;
}
