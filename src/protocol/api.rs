//! The APIs and their versions: one table, one row per API.
//!
//! To serve another API, add a row here and, unless it is there already, a descriptor to `schema` (a test asks for
//! it). What a row says is in [`Api`].

use std::ops::RangeInclusive;

use crate::model::limits::{COLD_FRAME_SIZE_BYTES_MAX, FRAME_SIZE_BYTES_MAX};

/// What is known of one API.
#[derive(Clone, Copy, Debug)]
pub struct Api {
    /// Its key.
    pub key: ApiKey,
    /// Kafka's name for it.
    pub name: &'static str,
    /// Least and greatest version that ApiVersions advertises.
    pub advertised: (i16, i16),
    /// The least version that is served. Below it, down to the advertised minimum, requests are refused: clients
    /// derive features from the advertised minimum and must see Kafka's.
    pub works_from: i16,
    /// The first flexible version (KIP-482), which decides over both headers.
    pub flexible_from: i16,
}

macro_rules! apis {
    ($($name:ident = $key:literal, versions $min:literal to $max:literal, from $works:literal, flexible $flexible:literal;)*) => {
        /// An API that this broker serves. The values are Kafka's keys.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ApiKey {
            $(
                #[doc = concat!("`", stringify!($name), "`, versions ", stringify!($min), " to ", stringify!($max), ".")]
                $name = $key,
            )*
        }

        impl ApiKey {
            /// Every API, by ascending key.
            pub const ALL: &'static [ApiKey] = &[$(ApiKey::$name,)*];

            /// The API with this key, or `None` if it is not served.
            #[inline]
            pub const fn from_key(key: i16) -> Option<ApiKey> {
                match key {
                    $($key => Some(ApiKey::$name),)*
                    _ => None,
                }
            }

            /// Its row of the table.
            #[inline]
            pub const fn api(self) -> Api {
                match self {
                    $(ApiKey::$name => Api {
                        key: self,
                        name: stringify!($name),
                        advertised: ($min, $max),
                        works_from: $works,
                        flexible_from: $flexible,
                    },)*
                }
            }
        }
    };
}

apis! {
    // Advertised from 0, for older librdkafka derives its features from the minimum; works from 3, as in Kafka 4.
    Produce = 0, versions 0 to 13, from 3, flexible 9;
    Fetch = 1, versions 4 to 18, from 4, flexible 12;
    ListOffsets = 2, versions 1 to 11, from 1, flexible 6;
    Metadata = 3, versions 0 to 13, from 0, flexible 9;
    OffsetCommit = 8, versions 2 to 10, from 2, flexible 8;
    OffsetFetch = 9, versions 1 to 10, from 1, flexible 6;
    FindCoordinator = 10, versions 0 to 6, from 0, flexible 3;
    JoinGroup = 11, versions 0 to 9, from 0, flexible 6;
    Heartbeat = 12, versions 0 to 4, from 0, flexible 4;
    LeaveGroup = 13, versions 0 to 5, from 0, flexible 4;
    SyncGroup = 14, versions 0 to 5, from 0, flexible 4;
    DescribeGroups = 15, versions 0 to 6, from 0, flexible 5;
    ListGroups = 16, versions 0 to 5, from 0, flexible 3;
    ApiVersions = 18, versions 0 to 4, from 0, flexible 3;
    CreateTopics = 19, versions 2 to 7, from 2, flexible 5;
    DeleteTopics = 20, versions 1 to 6, from 1, flexible 4;
    DeleteRecords = 21, versions 0 to 2, from 0, flexible 2;
    InitProducerId = 22, versions 0 to 5, from 0, flexible 2;
    OffsetForLeaderEpoch = 23, versions 2 to 4, from 2, flexible 4;
    AddPartitionsToTxn = 24, versions 0 to 5, from 0, flexible 3;
    AddOffsetsToTxn = 25, versions 0 to 4, from 0, flexible 3;
    EndTxn = 26, versions 0 to 5, from 0, flexible 3;
    WriteTxnMarkers = 27, versions 1 to 1, from 1, flexible 1;
    TxnOffsetCommit = 28, versions 0 to 5, from 0, flexible 3;
    DescribeConfigs = 32, versions 1 to 4, from 1, flexible 4;
    AlterConfigs = 33, versions 0 to 2, from 0, flexible 2;
    DescribeLogDirs = 35, versions 1 to 4, from 1, flexible 2;
    CreatePartitions = 37, versions 0 to 3, from 0, flexible 2;
    DeleteGroups = 42, versions 0 to 2, from 0, flexible 2;
    ElectLeaders = 43, versions 0 to 2, from 0, flexible 2;
    IncrementalAlterConfigs = 44, versions 0 to 1, from 0, flexible 1;
    AlterPartitionReassignments = 45, versions 0 to 1, from 0, flexible 0;
    ListPartitionReassignments = 46, versions 0 to 0, from 0, flexible 0;
    OffsetDelete = 47, versions 0 to 0, from 0, flexible 32767;
    DescribeCluster = 60, versions 0 to 2, from 0, flexible 0;
    DescribeProducers = 61, versions 0 to 0, from 0, flexible 0;
    DescribeTransactions = 65, versions 0 to 0, from 0, flexible 0;
    ListTransactions = 66, versions 0 to 2, from 0, flexible 0;
    ConsumerGroupHeartbeat = 68, versions 0 to 1, from 0, flexible 0;
    ConsumerGroupDescribe = 69, versions 0 to 1, from 0, flexible 0;
    ListConfigResources = 74, versions 0 to 1, from 0, flexible 0;
    DescribeTopicPartitions = 75, versions 0 to 0, from 0, flexible 0;
}

/// What a request header's key and version stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Served.
    Served(ApiKey),
    /// The API is served, this version is not. ApiVersions answers this with
    /// [`encode_unsupported_api_versions`](crate::protocol::encode::encode_unsupported_api_versions); for any other
    /// API Kafka closes the connection.
    UnknownVersion(ApiKey),
    /// No such API. Kafka closes the connection.
    UnknownKey,
}

/// What `key` and `version` stand for.
#[inline]
pub const fn lookup(key: i16, version: i16) -> Lookup {
    match ApiKey::from_key(key) {
        Some(api) if api.serves(version) => Lookup::Served(api),
        Some(api) => Lookup::UnknownVersion(api),
        None => Lookup::UnknownKey,
    }
}

/// The greatest frame that a request with this key may have: only Produce carries records.
#[inline]
pub const fn frame_size_bytes_max(key: i16) -> usize {
    match ApiKey::from_key(key) {
        Some(ApiKey::Produce) => FRAME_SIZE_BYTES_MAX,
        _ => COLD_FRAME_SIZE_BYTES_MAX,
    }
}

/// What ApiVersions advertises: key, least and greatest version, by ascending key.
pub fn advertised() -> impl ExactSizeIterator<Item = (ApiKey, i16, i16)> {
    ApiKey::ALL.iter().map(|key| {
        let (min, max) = key.api().advertised;
        (*key, min, max)
    })
}

impl ApiKey {
    /// The number on the wire.
    #[inline]
    pub const fn key(self) -> i16 {
        self as i16
    }

    /// Kafka's name for it.
    pub const fn name(self) -> &'static str {
        self.api().name
    }

    /// The versions that are served.
    pub const fn versions(self) -> RangeInclusive<i16> {
        let api = self.api();
        api.works_from..=api.advertised.1
    }

    /// True if `version` is served.
    #[inline]
    pub const fn serves(self, version: i16) -> bool {
        let api = self.api();
        version >= api.works_from && version <= api.advertised.1
    }

    /// True if `version` uses compact lengths and tagged fields.
    #[inline]
    pub const fn is_flexible(self, version: i16) -> bool {
        version >= self.api().flexible_from
    }

    /// Version of the request header: 2 (tagged fields) for flexible versions, else 1.
    #[inline]
    pub const fn request_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) { 2 } else { 1 }
    }

    /// Version of the response header: 1 (tagged fields) for flexible versions, else 0. Always 0 for ApiVersions,
    /// whose answer a client must be able to read before it knows what the broker speaks (KIP-511).
    #[inline]
    pub const fn response_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) && !matches!(self, ApiKey::ApiVersions) { 1 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_versions_are_those_of_the_reference_codec() {
        // kafka-protocol derives them from Kafka's message definitions.
        for api in ApiKey::ALL {
            let reference = kafka_protocol::messages::ApiKey::try_from(api.key()).unwrap();
            assert_eq!(format!("{reference:?}"), api.name());
            for version in api.versions() {
                assert_eq!(api.request_header_version(version), reference.request_header_version(version));
                assert_eq!(api.response_header_version(version), reference.response_header_version(version));
            }
        }
    }

    #[test]
    fn the_table_is_ordered_and_its_ranges_make_sense() {
        assert!(ApiKey::ALL.is_sorted());
        for (key, min, max) in advertised() {
            assert!(min <= key.api().works_from && key.api().works_from <= max);
            assert_eq!(ApiKey::from_key(key.key()), Some(key));
        }
    }

    #[test]
    fn unknown_keys_and_versions_are_values() {
        assert_eq!(lookup(0, 2), Lookup::UnknownVersion(ApiKey::Produce));
        assert_eq!(lookup(0, 3), Lookup::Served(ApiKey::Produce));
        assert_eq!(lookup(18, 127), Lookup::UnknownVersion(ApiKey::ApiVersions));
        assert_eq!(lookup(18, -1), Lookup::UnknownVersion(ApiKey::ApiVersions));
        assert_eq!(lookup(999, 0), Lookup::UnknownKey);
    }
}
