//! `althing cert`: certificates for development and for the links of a cluster.

mod authority;
pub(super) mod cluster;
pub(super) mod dev;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum CertCommand {
    /// Make a development CA and a server certificate (ECDSA P-256) for DOMAIN, localhost and loopback addresses
    ///
    /// An existing CA is kept. The server certificate is kept as long as it covers the domains and is valid
    /// for 30 days more. Files: ca.pem (give it to clients), ca.key, server.pem, server.key.
    Dev(dev::CertDevArgs),
    /// Make the CA of a cluster, and a certificate and key (ECDSA P-256) for each node
    ///
    /// An existing CA is kept, so that names can be added later. A node's certificate is kept as long as it is
    /// valid for 30 days more. Files: ca.pem (for all nodes), ca.key (for nobody), NAME.pem, NAME.key.
    Cluster(cluster::CertClusterArgs),
}

pub(super) fn cert(command: &CertCommand) -> anyhow::Result<()> {
    match command {
        CertCommand::Dev(args) => dev::run(args),
        CertCommand::Cluster(args) => cluster::run(args),
    }
}
