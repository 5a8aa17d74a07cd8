//! Who is where. Knows no XEP.

pub mod routes;
