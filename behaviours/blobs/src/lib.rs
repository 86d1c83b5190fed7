#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod core;
pub mod files;
pub mod wire;

pub use crate::core::{
    bitmap::Bitmap,
    blob::{Blob, BlobId},
    download::{Config as DownloadConfig, Download, Output as DownloadOutput, Progress, Report},
    manifest::{FileName, Manifest},
    reject::Reject,
    seal::Key,
    slice::{Slice, Step, Verified},
    storage::{GroupSink, StepSource},
    upload::{Config as UploadConfig, Output as UploadOutput, Upload},
};
