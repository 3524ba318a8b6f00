//! Which paths `show routes` shows, by their attributes.

use super::{RouteFilter, table::Path};
use crate::{
    bgp::{
        policy::{AsPathPattern, Community, CommunityError, Match, PatternError},
        wire::attr::Attrs,
    },
    net::Asn,
};

/// A text of a [`RouteFilter`] that is wrong, with its option.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("--community: {0}")]
    Community(#[from] CommunityError),
    #[error("--as-path: {0}")]
    AsPath(#[from] PatternError),
}

/// The conditions of a [`RouteFilter`] that concern one path.
#[derive(Clone, Debug, Default)]
pub(super) struct PathFilter {
    refused: bool,
    attributes: Match,
}

impl PathFilter {
    /// Reads the texts of the filter.
    ///
    /// # Errors
    ///
    /// One line about a text that is wrong.
    pub(super) fn new(filter: &RouteFilter) -> Result<Self, FilterError> {
        let communities = filter.community.iter().map(|text| text.parse::<Community>());
        let as_path = filter.as_path.as_ref().map(|text| text.parse::<AsPathPattern>()).transpose();
        let attributes = Match {
            communities: communities.collect::<Result<_, _>>()?,
            as_path: as_path?,
            origin_as: filter.origin_as.into_iter().collect(),
            ..Match::default()
        };
        Ok(Self { refused: filter.refused, attributes })
    }

    pub(super) fn wants(&self, path: &Path, attrs: &Attrs, own_as: Asn) -> bool {
        (!self.refused || path.refused != 0) && self.attributes.fits(attrs, own_as)
    }
}

impl RouteFilter {
    /// Checks the texts of the filter.
    ///
    /// # Errors
    ///
    /// One line about a text that is wrong.
    pub fn check(&self) -> Result<(), FilterError> {
        PathFilter::new(self).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_are_wrong_are_one_line_with_the_option() {
        let wrong = [
            (
                RouteFilter { community: Some("65001".into()), ..RouteFilter::default() },
                "--community: `65001`",
            ),
            (
                RouteFilter { as_path: Some("(".into()), ..RouteFilter::default() },
                "--as-path: `(` is not a regular",
            ),
        ];
        for (filter, expected) in wrong {
            let error = filter.check().unwrap_err().to_string();
            assert!(error.starts_with(expected) && error.lines().count() == 1, "{error}");
        }
        let right = RouteFilter {
            community: Some("no-export".into()),
            as_path: Some("_65001_".into()),
            ..RouteFilter::default()
        };
        assert_eq!(right.check(), Ok(()));
    }
}
