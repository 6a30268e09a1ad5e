//! What a computation leaves in registers.

/// Zeroes the registers that a function need not preserve for its caller, all vector registers among them.
///
/// What a computation leaves in those stays until something else needs them, which may be long after, and
/// until then any signal writes it to the stack.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "names registers")]
#[inline(never)]
pub(super) fn clear() {
    use std::arch::{asm, is_x86_feature_detected};

    // In AVX's encoding a write of a register's first 16 bytes zeroes the rest, and without AVX there is none.
    let has_avx = is_x86_feature_detected!("avx");
    // SAFETY: the processor has these instructions, and the compiler knows that the registers change.
    unsafe {
        if has_avx {
            asm!(
                ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
                "vpxor xmm\\n, xmm\\n, xmm\\n",
                ".endr",
                clobber_abi("sysv64"),
                options(nomem, nostack, preserves_flags),
            );
        } else {
            asm!(
                ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
                "pxor xmm\\n, xmm\\n",
                ".endr",
                clobber_abi("sysv64"),
                options(nomem, nostack, preserves_flags),
            );
        }
    }
    if is_x86_feature_detected!("avx512vl") {
        // SAFETY: as above.
        unsafe {
            asm!(
                ".irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31",
                "vpxord xmm\\n, xmm\\n, xmm\\n",
                ".endr",
                clobber_abi("sysv64"),
                options(nomem, nostack, preserves_flags),
            );
        }
    }
    // SAFETY: as above.
    unsafe {
        asm!(
            ".irp r, eax, ecx, edx, esi, edi, r8d, r9d, r10d, r11d",
            "xor \\r, \\r",
            ".endr",
            clobber_abi("sysv64"),
            options(nomem, nostack),
        );
    }
}

/// Elsewhere the next use of a register has to overwrite it.
#[cfg(not(target_arch = "x86_64"))]
pub(super) const fn clear() {}
