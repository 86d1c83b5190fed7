#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

#[cfg(feature = "libp2p")]
pub mod behaviour;
#[cfg(feature = "libp2p")]
mod config;
pub mod core;
#[cfg(feature = "libp2p")]
mod event;
pub mod files;
#[cfg(feature = "libp2p")]
mod handler;
#[cfg(feature = "libp2p")]
mod ids;
#[cfg(feature = "libp2p")]
mod runtime;
pub mod wire;

#[cfg(feature = "libp2p")]
pub use behaviour::Behaviour;
#[cfg(feature = "libp2p")]
pub use config::{Config, StartError};
#[cfg(feature = "libp2p")]
pub use event::{Event, Failure, Resumed, TaskId};

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
