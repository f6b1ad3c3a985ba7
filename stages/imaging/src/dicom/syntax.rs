//! Transfer syntaxes: how elements and pixels of a file are encoded (PS3.5, annex A; PS3.6, annex A).

use super::fault::Fault;

/// An encoding that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferSyntax {
    ImplicitLittleEndian,
    ExplicitLittleEndian,
    ExplicitBigEndian,
    /// Baseline and extended, 8 bits.
    Jpeg,
    JpegLossless,
    RunLength,
}

impl TransferSyntax {
    /// By UID. Encodings that exist but are not read are told by name.
    pub(super) fn of(uid: &str) -> Result<Self, Fault> {
        let name = match uid {
            "1.2.840.10008.1.2" => return Ok(Self::ImplicitLittleEndian),
            "1.2.840.10008.1.2.1" => return Ok(Self::ExplicitLittleEndian),
            "1.2.840.10008.1.2.2" => return Ok(Self::ExplicitBigEndian),
            "1.2.840.10008.1.2.4.50" | "1.2.840.10008.1.2.4.51" => return Ok(Self::Jpeg),
            "1.2.840.10008.1.2.4.57" | "1.2.840.10008.1.2.4.70" => return Ok(Self::JpegLossless),
            "1.2.840.10008.1.2.5" => return Ok(Self::RunLength),
            "1.2.840.10008.1.2.1.99" => "deflated",
            "1.2.840.10008.1.2.4.80" | "1.2.840.10008.1.2.4.81" => "JPEG-LS",
            "1.2.840.10008.1.2.4.90" | "1.2.840.10008.1.2.4.91" => "JPEG 2000",
            "1.2.840.10008.1.2.4.201" | "1.2.840.10008.1.2.4.202" | "1.2.840.10008.1.2.4.203" => "HTJ2K",
            uid if uid.starts_with("1.2.840.10008.1.2.4.10") => "video",
            _ => "unknown",
        };
        Err(Fault::TransferSyntax { name, uid: uid.to_owned() })
    }

    pub(super) fn big_endian(self) -> bool {
        self == Self::ExplicitBigEndian
    }

    pub(super) fn explicit(self) -> bool {
        self != Self::ImplicitLittleEndian
    }

    pub(super) fn compressed(self) -> bool {
        matches!(self, Self::Jpeg | Self::JpegLossless | Self::RunLength)
    }
}
