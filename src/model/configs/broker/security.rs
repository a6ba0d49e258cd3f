//! Broker config keys: authentication, authorization, TLS and delegation tokens, none of which ottla uses yet.
//!
//! Names, types, defaults and bounds are those a Kafka 4.2 broker answers; the words are our own.

use crate::model::configs::key::{ConfigKey, keys};

/// The keys of this family, by name within each subject.
pub const KEYS: &[ConfigKey] = keys! {
    "authorizer.class.name", String, Some(""), Any, ReadOnly, Ignored,
        "A Java class that authorizes requests; ottla runs no Java.";
    "principal.builder.class", Class,
        Some("org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder"), Any, Dynamic, Ignored,
        "A Java class that names principals; ottla runs no Java.";
    "security.providers", String, None, Any, ReadOnly, Ignored,
        "Java security providers; ottla runs no Java.";
    "connections.max.reauth.ms", Long, Some("0"), Any, ReadOnly, Ignored,
        "SASL: when a client must authenticate again.";
    "delegation.token.secret.key", Password, None, Any, ReadOnly, Ignored,
        "Delegation tokens: the key that signs them.";
    "delegation.token.max.lifetime.ms", Long, Some("604800000"), AtLeast(1), ReadOnly, Ignored,
        "Delegation tokens: longest life.";
    "delegation.token.expiry.time.ms", Long, Some("86400000"), AtLeast(1), ReadOnly, Ignored,
        "Delegation tokens: life without renewal.";
    "delegation.token.expiry.check.interval.ms", Long, Some("3600000"), AtLeast(1), ReadOnly, Ignored,
        "Delegation tokens: how often expired ones are removed.";
    "sasl.enabled.mechanisms", List, Some("GSSAPI"), Any, Dynamic, Ignored,
        "SASL: mechanisms that are offered.";
    "sasl.server.callback.handler.class", Class, None, Any, ReadOnly, Ignored,
        "SASL: a Java class.";
    "sasl.server.max.receive.size", Int, Some("524288"), Any, ReadOnly, Ignored,
        "SASL: greatest frame before authentication.";
    "sasl.mechanism.inter.broker.protocol", String, Some("GSSAPI"), Any, Dynamic, Ignored,
        "SASL: mechanism between Kafka's brokers.";
    "sasl.mechanism.controller.protocol", String, Some("GSSAPI"), Any, ReadOnly, Ignored,
        "SASL: mechanism with Kafka's controllers.";
    "sasl.jaas.config", Password, None, Any, Dynamic, Ignored,
        "SASL: login module and its options.";
    "sasl.client.callback.handler.class", Class, None, Any, ReadOnly, Ignored,
        "SASL: a Java class.";
    "sasl.login.class", Class, None, Any, ReadOnly, Ignored,
        "SASL: a Java class.";
    "sasl.login.callback.handler.class", Class, None, Any, ReadOnly, Ignored,
        "SASL: a Java class.";
    "sasl.login.connect.timeout.ms", Int, None, Any, ReadOnly, Ignored,
        "SASL: timeout of connecting to the provider.";
    "sasl.login.read.timeout.ms", Int, None, Any, ReadOnly, Ignored,
        "SASL: timeout of reading from the provider.";
    "sasl.login.refresh.buffer.seconds", Short, Some("300"), Any, Dynamic, Ignored,
        "SASL: time left when a login is refreshed.";
    "sasl.login.refresh.min.period.seconds", Short, Some("60"), Any, Dynamic, Ignored,
        "SASL: least time between refreshes.";
    "sasl.login.refresh.window.factor", Double, Some("0.8"), Any, Dynamic, Ignored,
        "SASL: share of a login's life after which it is refreshed.";
    "sasl.login.refresh.window.jitter", Double, Some("0.05"), Any, Dynamic, Ignored,
        "SASL: random part of that share.";
    "sasl.login.retry.backoff.max.ms", Long, Some("10000"), Any, ReadOnly, Ignored,
        "SASL: greatest pause between logins.";
    "sasl.login.retry.backoff.ms", Long, Some("100"), Any, ReadOnly, Ignored,
        "SASL: first pause between logins.";
    "sasl.kerberos.kinit.cmd", String, Some("/usr/bin/kinit"), Any, Dynamic, Ignored,
        "Kerberos: the kinit command.";
    "sasl.kerberos.min.time.before.relogin", Long, Some("60000"), Any, Dynamic, Ignored,
        "Kerberos: pause between logins.";
    "sasl.kerberos.principal.to.local.rules", List, Some("DEFAULT"), Any, Dynamic, Ignored,
        "Kerberos: from principals to short names.";
    "sasl.kerberos.service.name", String, None, Any, Dynamic, Ignored,
        "Kerberos: name of the service.";
    "sasl.kerberos.ticket.renew.jitter", Double, Some("0.05"), Any, Dynamic, Ignored,
        "Kerberos: random part of the renewal time.";
    "sasl.kerberos.ticket.renew.window.factor", Double, Some("0.8"), Any, Dynamic, Ignored,
        "Kerberos: share of a ticket's life after which it is renewed.";
    "sasl.oauthbearer.assertion.algorithm", String, Some("RS256"), Any, ReadOnly, Ignored,
        "OAuth: algorithm that signs an assertion.";
    "sasl.oauthbearer.assertion.claim.aud", String, None, Any, ReadOnly, Ignored,
        "OAuth: an assertion's audience.";
    "sasl.oauthbearer.assertion.claim.exp.seconds", Int, Some("300"), Any, ReadOnly, Ignored,
        "OAuth: an assertion's life.";
    "sasl.oauthbearer.assertion.claim.iss", String, None, Any, ReadOnly, Ignored,
        "OAuth: an assertion's issuer.";
    "sasl.oauthbearer.assertion.claim.jti.include", Boolean, Some("false"), Any, ReadOnly, Ignored,
        "OAuth: whether an assertion has an id.";
    "sasl.oauthbearer.assertion.claim.nbf.seconds", Int, Some("60"), Any, ReadOnly, Ignored,
        "OAuth: how far back an assertion is valid.";
    "sasl.oauthbearer.assertion.claim.sub", String, None, Any, ReadOnly, Ignored,
        "OAuth: an assertion's subject.";
    "sasl.oauthbearer.assertion.file", String, None, Any, ReadOnly, Ignored,
        "OAuth: a file with an assertion.";
    "sasl.oauthbearer.assertion.private.key.file", String, None, Any, ReadOnly, Ignored,
        "OAuth: a file with the key that signs.";
    "sasl.oauthbearer.assertion.private.key.passphrase", Password, None, Any, ReadOnly, Ignored,
        "OAuth: passphrase of that key.";
    "sasl.oauthbearer.assertion.template.file", String, None, Any, ReadOnly, Ignored,
        "OAuth: a file with an assertion's template.";
    "sasl.oauthbearer.client.credentials.client.id", String, None, Any, ReadOnly, Ignored,
        "OAuth: the client's id.";
    "sasl.oauthbearer.client.credentials.client.secret", Password, None, Any, ReadOnly, Ignored,
        "OAuth: the client's secret.";
    "sasl.oauthbearer.clock.skew.seconds", Int, Some("30"), Any, ReadOnly, Ignored,
        "OAuth: difference of clocks that is forgiven.";
    "sasl.oauthbearer.expected.audience", List, None, Any, ReadOnly, Ignored,
        "OAuth: audience that a token must have.";
    "sasl.oauthbearer.expected.issuer", String, None, Any, ReadOnly, Ignored,
        "OAuth: issuer that a token must have.";
    "sasl.oauthbearer.jwks.endpoint.refresh.ms", Long, Some("3600000"), Any, ReadOnly, Ignored,
        "OAuth: how often keys are fetched.";
    "sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms", Long, Some("10000"), Any, ReadOnly, Ignored,
        "OAuth: greatest pause between tries to fetch keys.";
    "sasl.oauthbearer.jwks.endpoint.retry.backoff.ms", Long, Some("100"), Any, ReadOnly, Ignored,
        "OAuth: first pause between tries to fetch keys.";
    "sasl.oauthbearer.jwks.endpoint.url", String, None, Any, ReadOnly, Ignored,
        "OAuth: where keys are.";
    "sasl.oauthbearer.jwt.retriever.class", Class,
        Some("org.apache.kafka.common.security.oauthbearer.DefaultJwtRetriever"), Any, ReadOnly, Ignored,
        "OAuth: a Java class.";
    "sasl.oauthbearer.jwt.validator.class", Class,
        Some("org.apache.kafka.common.security.oauthbearer.DefaultJwtValidator"), Any, ReadOnly, Ignored,
        "OAuth: a Java class.";
    "sasl.oauthbearer.scope", String, None, Any, ReadOnly, Ignored,
        "OAuth: the scope that is asked for.";
    "sasl.oauthbearer.scope.claim.name", String, Some("scope"), Any, ReadOnly, Ignored,
        "OAuth: the claim that holds the scope.";
    "sasl.oauthbearer.sub.claim.name", String, Some("sub"), Any, ReadOnly, Ignored,
        "OAuth: the claim that holds the subject.";
    "sasl.oauthbearer.token.endpoint.url", String, None, Any, ReadOnly, Ignored,
        "OAuth: where tokens are.";
    "ssl.allow.dn.changes", Boolean, Some("false"), Any, ReadOnly, Ignored,
        "TLS: whether a new key store may name another subject.";
    "ssl.allow.san.changes", Boolean, Some("false"), Any, ReadOnly, Ignored,
        "TLS: whether a new key store may name other alternatives.";
    "ssl.cipher.suites", List, Some(""), Any, Dynamic, Ignored,
        "TLS: cipher suites.";
    "ssl.client.auth", String, Some("none"), Any, Dynamic, Ignored,
        "TLS: whether clients show a certificate.";
    "ssl.enabled.protocols", List, Some("TLSv1.2,TLSv1.3"), Any, Dynamic, Ignored,
        "TLS: versions that are offered.";
    "ssl.endpoint.identification.algorithm", String, Some("https"), Any, Dynamic, Ignored,
        "TLS: how a server's name is checked.";
    "ssl.engine.factory.class", Class, None, Any, Dynamic, Ignored,
        "TLS: a Java class.";
    "ssl.key.password", Password, None, Any, Dynamic, Ignored,
        "TLS: password of the private key.";
    "ssl.keymanager.algorithm", String, Some("SunX509"), Any, Dynamic, Ignored,
        "TLS: a Java algorithm.";
    "ssl.keystore.certificate.chain", Password, None, Any, Dynamic, Ignored,
        "TLS: the certificate chain.";
    "ssl.keystore.key", Password, None, Any, Dynamic, Ignored,
        "TLS: the private key.";
    "ssl.keystore.location", String, None, Any, Dynamic, Ignored,
        "TLS: file of the key store.";
    "ssl.keystore.password", Password, None, Any, Dynamic, Ignored,
        "TLS: password of the key store.";
    "ssl.keystore.type", String, Some("JKS"), Any, Dynamic, Ignored,
        "TLS: format of the key store.";
    "ssl.principal.mapping.rules", String, Some("DEFAULT"), Any, ReadOnly, Ignored,
        "TLS: from distinguished names to short names.";
    "ssl.protocol", String, Some("TLSv1.3"), Any, Dynamic, Ignored,
        "TLS: the protocol.";
    "ssl.provider", String, None, Any, Dynamic, Ignored,
        "TLS: a Java provider.";
    "ssl.secure.random.implementation", String, None, Any, Dynamic, Ignored,
        "TLS: a Java random generator.";
    "ssl.trustmanager.algorithm", String, Some("PKIX"), Any, Dynamic, Ignored,
        "TLS: a Java algorithm.";
    "ssl.truststore.certificates", Password, None, Any, Dynamic, Ignored,
        "TLS: trusted certificates.";
    "ssl.truststore.location", String, None, Any, Dynamic, Ignored,
        "TLS: file of the trust store.";
    "ssl.truststore.password", Password, None, Any, Dynamic, Ignored,
        "TLS: password of the trust store.";
    "ssl.truststore.type", String, Some("JKS"), Any, Dynamic, Ignored,
        "TLS: format of the trust store.";
};
