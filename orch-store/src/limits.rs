use crate::StoreError;

/// How large keys and values may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Longest key in bytes. Default 4 KiB.
    pub max_key: usize,
    /// Largest value in bytes. Default 1.5 MiB, etcd's default for a request.
    pub max_value: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_key: 4 * 1024,
            max_value: 3 * 512 * 1024,
        }
    }
}

impl Limits {
    /// Sets the longest key in bytes.
    #[must_use]
    pub fn max_key(mut self, bytes: usize) -> Self {
        self.max_key = bytes;
        self
    }

    /// Sets the largest value in bytes.
    #[must_use]
    pub fn max_value(mut self, bytes: usize) -> Self {
        self.max_value = bytes;
        self
    }

    pub(crate) fn check_key(&self, key: &[u8]) -> Result<(), StoreError> {
        if key.is_empty() {
            return Err(StoreError::EmptyKey);
        }
        if key.len() > self.max_key {
            return Err(StoreError::KeyTooLong {
                size: key.len(),
                limit: self.max_key,
            });
        }
        Ok(())
    }

    pub(crate) fn check_value(&self, value: &[u8]) -> Result<(), StoreError> {
        if value.len() > self.max_value {
            return Err(StoreError::ValueTooLarge {
                size: value.len(),
                limit: self.max_value,
            });
        }
        Ok(())
    }
}
