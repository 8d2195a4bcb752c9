//! What a handle looks like: base64url of identity (16 bytes), expiry (8, seconds since 1970) and a MAC over both
//! (HMAC-SHA-256, RFC 2104).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::store::Id;

const SIGNED: usize = 24;
const MAC: usize = 32;

/// Why a handle counts for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Invalid {
    /// It was not signed here, or was changed.
    Forged,
    /// It was valid until so many seconds ago.
    Expired { ago: u64 },
}

/// Writes and reads handles.
pub(super) struct Signer(Hmac<Sha256>);

impl Signer {
    pub(super) fn new(key: &[u8]) -> Self {
        Self(Hmac::new_from_slice(key).expect("a key of any length will do"))
    }

    pub(super) fn write(&self, id: &Id, expires: u64) -> String {
        let mut bytes = Vec::with_capacity(SIGNED + MAC);
        bytes.extend_from_slice(id);
        bytes.extend_from_slice(&expires.to_be_bytes());
        let mac = self.0.clone().chain_update(&bytes).finalize().into_bytes();
        bytes.extend_from_slice(&mac);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The identity in a handle.
    ///
    /// # Errors
    /// Nobody may have it. The MAC is looked at first, in constant time.
    pub(super) fn read(&self, handle: &str, now: u64) -> Result<Id, Invalid> {
        let bytes = URL_SAFE_NO_PAD.decode(handle).map_err(|_| Invalid::Forged)?;
        let (signed, mac) = bytes.split_at_checked(SIGNED).ok_or(Invalid::Forged)?;
        self.0.clone().chain_update(signed).verify_slice(mac).map_err(|_| Invalid::Forged)?;
        let (id, expires) = signed.split_first_chunk::<16>().ok_or(Invalid::Forged)?;
        let expires = u64::from_be_bytes(expires.try_into().map_err(|_| Invalid::Forged)?);
        if expires <= now {
            return Err(Invalid::Expired { ago: now - expires });
        }
        Ok(*id)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_handle_is_read_until_it_expires() {
        let signer = Signer::new(b"key");
        let handle = signer.write(&[7; 16], 100);
        assert_eq!(signer.read(&handle, 99), Ok([7; 16]));
        assert_eq!(signer.read(&handle, 100), Err(Invalid::Expired { ago: 0 }));
        assert_eq!(signer.read(&handle, 130), Err(Invalid::Expired { ago: 30 }));
        assert_eq!(Signer::new(b"another").read(&handle, 99), Err(Invalid::Forged));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_was_changed_is_forged(at in 0usize..75, with in "[A-Za-z0-9_-]", any in ".{0,100}") {
            let signer = Signer::new(b"key");
            let handle = signer.write(&[7; 16], 100);
            let mut changed = handle.clone();
            changed.replace_range(at..at + 1, &with);
            // The last character has bits that count for nothing, and a decoder that takes no others.
            prop_assert_eq!(signer.read(&changed, 0).is_ok(), changed == handle);
            prop_assert_eq!(signer.read(&any, 0), Err(Invalid::Forged));
            prop_assert_eq!(signer.read(&handle[..at], 0), Err(Invalid::Forged));
        }
    }
}
