//! Answers as tables and as the JSON of the interface page. Pure.
