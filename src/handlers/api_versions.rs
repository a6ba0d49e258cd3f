//! ApiVersions: what this broker speaks. Clients ask first and derive their features from the answer.

use kafka_protocol::messages::api_versions_response::{FinalizedFeatureKey, SupportedFeatureKey};
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::StrBytes;

use super::broker::Broker;
use super::call::Call;
use crate::io::Io;
use crate::protocol::encode;
use crate::protocol::error::ErrorCode;

/// Features with their least and their greatest level, which is the one in use. UIs and admin clients read
/// `metadata.version`; Java clients use the second protocol of transactions where `transaction.version` is 2;
/// `group.version` 1 is the consumer protocol. `share.version` is left out: Kafka does not list a feature whose level
/// is 0, and what is not listed clients do not use.
const FEATURES: [(&str, i16, i16); 3] =
    [("group.version", 0, 1), ("metadata.version", 25, 25), ("transaction.version", 0, 2)];

impl<I: Io> Broker<I> {
    /// Answers what is served. From version 3 on the client tells its name, which must be legal (KIP-511).
    pub(super) fn api_versions(&mut self, call: Call, request: &ApiVersionsRequest) {
        let mut response = ApiVersionsResponse::default().with_api_keys(encode::api_versions());
        if call.version >= 3 {
            let name = &request.client_software_name;
            let version = &request.client_software_version;
            if !(is_legal(name) && is_legal(version)) {
                response = ApiVersionsResponse::default().with_error_code(ErrorCode::InvalidRequest.code());
                return self.reply(call, &response);
            }
            // An epoch of -1 breaks librdkafka before 2.2, so features always come with a real one.
            response.supported_features = FEATURES
                .map(|(name, least, greatest)| {
                    SupportedFeatureKey::default()
                        .with_name(StrBytes::from_static_str(name))
                        .with_min_version(least)
                        .with_max_version(greatest)
                })
                .into();
            response.finalized_features_epoch = 0;
            response.finalized_features = FEATURES
                .map(|(name, _, level)| {
                    FinalizedFeatureKey::default()
                        .with_name(StrBytes::from_static_str(name))
                        .with_min_version_level(level)
                        .with_max_version_level(level)
                })
                .into();
        }
        self.reply(call, &response);
    }
}

/// `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?`, the rule of KIP-511.
fn is_legal(text: &str) -> bool {
    let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    ends(text.bytes().next())
        && ends(text.bytes().last())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_names_follow_the_rule_of_kip_511() {
        for legal in ["librdkafka", "a", "apache-kafka-java", "2.15.0", "x-1.y"] {
            assert!(is_legal(legal), "{legal}");
        }
        for illegal in ["", "-a", "a-", ".1", "a b", "käse", "a_b"] {
            assert!(!is_legal(illegal), "{illegal}");
        }
    }
}
