//! Where a conversion's input comes from, and how waiting for it is interrupted.
