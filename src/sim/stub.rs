//! TEMPORARY
#![allow(missing_docs, clippy::unused_self, clippy::needless_pass_by_value)]
use super::SimBank;
use crate::block::DeviceId;
use std::time::Duration;
#[derive(Clone, Debug)]
pub struct Snapshot;
impl SimBank {
    pub fn hang(&mut self, _: DeviceId, _: Duration) {}
    pub fn end_hang(&mut self, _: DeviceId) {}
    pub fn is_hung(&self, _: DeviceId) -> bool {
        false
    }
    pub fn slow(&mut self, _: DeviceId, _: u32) {}
    pub fn fail_flushes(&mut self, _: DeviceId, _: u64) {}
    pub fn limit_space(&mut self, _: DeviceId) {}
    pub fn unlimit_space(&mut self, _: DeviceId) {}
    pub fn snapshot(&self, _: DeviceId) -> Snapshot {
        Snapshot
    }
    pub fn restore(&mut self, _: DeviceId, _: Snapshot) {}
    pub fn swap(&mut self, _: DeviceId, _: DeviceId) {}
    pub fn copy(&mut self, _: DeviceId, _: DeviceId) {}
}
