//! Why the token service gave no token.

use std::fmt;

/// The service's reason, from its fault code (WS-Trust 1.3 §11, WS-Security §12).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenFault {
    /// User name or password are wrong, or the account is locked.
    FailedAuthentication,
    /// The message or what it asks for lies outside the service's time: the clocks differ.
    Time,
    /// The request is not understood or not allowed.
    InvalidRequest,
    /// The token that was to be exchanged or renewed is not good.
    InvalidToken,
    /// The service failed.
    RequestFailed,
    /// Another code, as it came.
    Other(Box<str>),
}

/// The token service refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRefusal {
    /// Why.
    pub fault: TokenFault,
    /// The service's own words.
    pub message: Box<str>,
}

impl TokenRefusal {
    pub(super) fn new(code: &str, message: &str) -> Self {
        let name = code.rsplit(':').next().unwrap_or(code).trim();
        let fault = match name {
            "FailedAuthentication" | "AuthenticationBadElements" => TokenFault::FailedAuthentication,
            "ExpiredData" | "InvalidTimeRange" | "MessageExpired" => TokenFault::Time,
            "InvalidRequest" | "BadRequest" | "InvalidScope" | "UnsupportedSecurityToken" => TokenFault::InvalidRequest,
            "InvalidSecurityToken" | "InvalidSecurity" | "FailedCheck" | "UnableToRenew" | "RenewNeeded" => {
                TokenFault::InvalidToken
            }
            "RequestFailed" => TokenFault::RequestFailed,
            other => TokenFault::Other(other.chars().take(MAX_CODE).collect()),
        };
        Self { fault, message: message.trim().into() }
    }

    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self.fault {
            TokenFault::FailedAuthentication => {
                Some("check user name (user@domain) and password; repeated tries can lock the account")
            }
            TokenFault::Time => Some("compare the clocks of this machine and of the vCenter Server"),
            _ => None,
        }
    }
}

impl fmt::Display for TokenRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.fault {
            TokenFault::Other(code) => f.write_str(code)?,
            known => write!(f, "{known:?}")?,
        }
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.message) }
    }
}

/// Codes are words.
const MAX_CODE: usize = 100;
