//! What the VM tests and the demonstration share: trees read from tar streams by a foreign reader,
//! real input from the distribution's packages, and a utility VM ready to use.

pub mod debian;
pub mod odd;
pub mod random;
pub mod tree;
