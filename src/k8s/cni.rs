//! podCIDRs → conflist bytes.
