//! Every text of a run once: a history of millions of steps holds numbers.

use std::collections::HashMap;
use std::sync::Arc;

/// A text by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Name(u32);

#[derive(Debug, Default)]
pub(super) struct Names {
    by_text: HashMap<Arc<str>, Name>,
    texts: Vec<Arc<str>>,
}

impl Names {
    pub fn intern(&mut self, text: &str) -> Name {
        if let Some(name) = self.by_text.get(text) {
            return *name;
        }
        // Four thousand million different texts do not fit into memory.
        let name = Name(u32::try_from(self.texts.len()).unwrap_or(u32::MAX));
        let text: Arc<str> = text.into();
        self.texts.push(text.clone());
        self.by_text.insert(text, name);
        name
    }

    pub fn text(&self, name: Name) -> String {
        self.texts
            .get(name.0 as usize)
            .map_or_else(String::new, |text| text.to_string())
    }
}
