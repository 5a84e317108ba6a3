//! How this process uses its heap.

/// How much of the heap is kept although it is free, in bytes; also the size from which memory is
/// asked of the system piece by piece. A run has less, and glibc takes no larger one.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_BYTES: i32 = 32 << 20;

/// Lets the heap keep what a run gives back, for the next one.
///
/// A run fills files of a few megabytes and drops them again. Without this, glibc returns them to the
/// system after each run, and a tenth of the next one and more goes by in page faults. Elsewhere nothing
/// is done.
pub fn keep() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for parameter in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
        // SAFETY: it sets a number in the allocator, under a lock of the allocator's.
        let known = unsafe { libc::mallopt(parameter, KEPT_BYTES) };
        debug_assert_eq!(known, 1, "glibc has this parameter");
    }
}
