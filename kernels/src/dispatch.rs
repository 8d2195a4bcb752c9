//! What this processor can do, found out once.

use std::sync::OnceLock;

/// A set of instructions that fast code is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Plain Rust: runs anywhere. The compiler turns it into whatever the target always has (SSE2, NEON).
    Portable,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW and VNNI.
    Avx512,
    /// AArch64 with NEON.
    Neon,
    /// AArch64 with NEON and its dot products of bytes (optional from Armv8.2, always there from Armv8.4).
    NeonDot,
}

impl Backend {
    /// Every backend, slowest first.
    pub const ALL: [Self; 5] = [Self::Portable, Self::Avx2, Self::Avx512, Self::Neon, Self::NeonDot];

    /// Whether this processor has the instructions.
    pub fn available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => Self::Neon.available() && std::arch::is_aarch64_feature_detected!("dotprod"),
            _ => false,
        }
    }

    /// The fastest one available.
    pub fn best() -> Self {
        static BEST: OnceLock<Backend> = OnceLock::new();
        *BEST.get_or_init(|| *Self::ALL.iter().rfind(|backend| backend.available()).unwrap_or(&Self::Portable))
    }
}

#[cfg(test)]
mod tests {
    use super::Backend;

    #[test]
    fn the_best_backend_is_available_and_none_after_it_is() {
        let best = Backend::best();
        assert!(best.available());
        let position = Backend::ALL.iter().position(|&backend| backend == best).unwrap();
        assert!(Backend::ALL[position + 1..].iter().all(|backend| !backend.available()));
        // Whoever runs the tests on a machine of a certain kind, emulated or not, says so here.
        if let Ok(required) = std::env::var("CAUSERIE_REQUIRE_BACKEND") {
            assert_eq!(format!("{best:?}"), required);
        }
    }
}
