//! A table by small numbers that are reused.

/// Values by number; freed numbers are reused.
#[derive(Debug)]
pub(super) struct Slab<T> {
    items: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Slab<T> {
    pub(super) fn new() -> Self {
        Self { items: Vec::new(), free: Vec::new() }
    }

    pub(super) fn insert(&mut self, value: T) -> u32 {
        let index = self.free.pop().unwrap_or(self.items.len());
        match self.items.get_mut(index) {
            Some(item) => *item = Some(value),
            None => self.items.push(Some(value)),
        }
        number(index)
    }

    pub(super) fn get(&self, id: u32) -> Option<&T> {
        self.items.get(index(id)?)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        self.items.get_mut(index(id)?)?.as_mut()
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<T> {
        let index = index(id)?;
        let item = self.items.get_mut(index)?.take()?;
        self.free.push(index);
        Some(item)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = u32> + use<T> {
        (0..self.items.len()).map(number)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.items.iter_mut().flatten()
    }
}

fn index(id: u32) -> Option<usize> {
    usize::try_from(id).ok()?.checked_sub(1)
}

fn number(index: usize) -> u32 {
    u32::try_from(index + 1).expect("fewer than 2^24 entries")
}
