//! The attributes that are read, by their keyword in the standard (PS3.6).

use super::element::Tag;
use super::fault::Fault;

/// Tag and keyword.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attribute {
    pub(super) tag: Tag,
    pub(super) keyword: &'static str,
}

impl Attribute {
    /// The attribute is there but says something impossible.
    pub(super) fn fault(self, text: &str, expected: &'static str) -> Fault {
        Fault::Value { keyword: self.keyword, tag: self.tag, text: text.to_owned(), expected }
    }

    /// The attribute is not there.
    pub(super) fn missing(self) -> Fault {
        Fault::Missing { keyword: self.keyword, tag: self.tag }
    }
}

macro_rules! attributes {
    ($($name:ident = $keyword:literal $group:literal $element:literal;)*) => {
        $(pub(super) const $name: Attribute = Attribute { tag: Tag($group, $element), keyword: $keyword };)*

        /// Every tag whose value is kept.
        pub(super) const WANTED: &[Tag] = &[$(Tag($group, $element)),*];
    };
}

attributes! {
    SOP_INSTANCE = "SOPInstanceUID" 0x0008 0x0018;
    STUDY_DATE = "StudyDate" 0x0008 0x0020;
    MODALITY = "Modality" 0x0008 0x0060;
    SERIES_DESCRIPTION = "SeriesDescription" 0x0008 0x103E;
    PATIENT_ID = "PatientID" 0x0010 0x0020;
    SLICE_THICKNESS = "SliceThickness" 0x0018 0x0050;
    SPACING_BETWEEN_SLICES = "SpacingBetweenSlices" 0x0018 0x0088;
    IMAGER_PIXEL_SPACING = "ImagerPixelSpacing" 0x0018 0x1164;
    STUDY_INSTANCE = "StudyInstanceUID" 0x0020 0x000D;
    SERIES_INSTANCE = "SeriesInstanceUID" 0x0020 0x000E;
    POSITION = "ImagePositionPatient" 0x0020 0x0032;
    ORIENTATION = "ImageOrientationPatient" 0x0020 0x0037;
    SAMPLES_PER_PIXEL = "SamplesPerPixel" 0x0028 0x0002;
    PHOTOMETRIC = "PhotometricInterpretation" 0x0028 0x0004;
    FRAMES = "NumberOfFrames" 0x0028 0x0008;
    ROWS = "Rows" 0x0028 0x0010;
    COLUMNS = "Columns" 0x0028 0x0011;
    PIXEL_SPACING = "PixelSpacing" 0x0028 0x0030;
    BITS_ALLOCATED = "BitsAllocated" 0x0028 0x0100;
    BITS_STORED = "BitsStored" 0x0028 0x0101;
    HIGH_BIT = "HighBit" 0x0028 0x0102;
    PIXEL_REPRESENTATION = "PixelRepresentation" 0x0028 0x0103;
    RESCALE_INTERCEPT = "RescaleIntercept" 0x0028 0x1052;
    RESCALE_SLOPE = "RescaleSlope" 0x0028 0x1053;
}
