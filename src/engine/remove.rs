//! `rmi`: names go first, the image with its last name, its layers with the last image that has them.

use super::Engine;
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::reference::Reference;
use crate::store::{Container, Image, Status};

/// What `rmi` took away, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Removed {
    /// A tag or repository digest.
    Untagged(String),
    /// An image.
    Deleted(Digest),
}

impl Engine {
    /// Removes what `name` means, as Docker does: a tag while the image has others; the image with its last tag, or by
    /// ID. Refused while a container uses the image, and by ID while several repositories name it, unless `force`.
    pub fn remove_image(&self, name: &str, force: bool) -> Result<Vec<Removed>> {
        let image = self.store.find_image(name)?;
        let all = self.store.references_of(&image.id)?;
        let asked = Reference::parse(name).ok().filter(|reference| all.contains(reference));
        let leaving = match &asked {
            Some(reference) => names_leaving_with(reference, &all),
            None => all.clone(),
        };
        let and_image = leaving.len() == all.len();
        if and_image {
            self.refuse_if_used(name, &image, force)?;
        }
        if asked.is_none() && !force && count_tags(&all) > 1 {
            let short = image.id.short();
            let message = format!(
                "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
            );
            return Err(Error::new(Kind::Conflict, message));
        }
        self.store.remove_image(&image.id, &leaving, and_image)?;
        let mut removed: Vec<Removed> =
            leaving.iter().map(|reference| Removed::Untagged(reference.familiar())).collect();
        if and_image {
            self.store.collect_or_warn(&image.config.diff_ids()?);
            removed.push(Removed::Deleted(image.id));
        }
        Ok(removed)
    }

    fn refuse_if_used(&self, name: &str, image: &Image, force: bool) -> Result<()> {
        let id = image.id.to_string();
        let uses = |container: &&Container| container.record.image == id;
        let containers = self.store.containers()?;
        let mut users: Vec<&Container> = containers.iter().filter(uses).collect();
        users.sort_by_key(|container| container.status != Status::Running);
        let Some(user) = users.first() else { return Ok(()) };
        let container = user.record.id.get(..12).unwrap_or(&user.record.id);
        let short = image.id.short();
        let why = match user.status {
            Status::Running => "cannot be forced) - image is being used by running container",
            // A container keeps its writable layer only: without its image it could never start again.
            _ if force => "cannot be forced) - image is needed by stopped container",
            _ => "must be forced) - image is being used by stopped container",
        };
        let message = format!("conflict: unable to remove {name:?} ({short}) ({why} {container}");
        Err(Error::new(Kind::Conflict, message))
    }
}

/// A tag takes the repository's digests with it when it is the repository's last tag.
fn names_leaving_with(reference: &Reference, all: &[Reference]) -> Vec<Reference> {
    let same_repository = |other: &&Reference| other.familiar_name() == reference.familiar_name();
    let other_tag = |other: &&Reference| other.tag().is_some() && *other != reference;
    let is_last = !all.iter().filter(same_repository).any(|other| other_tag(&other));
    let mut leaving = vec![reference.clone()];
    if is_last && reference.tag().is_some() {
        leaving.extend(
            all.iter().filter(same_repository).filter(|other| other.tag().is_none()).cloned(),
        );
    }
    leaving
}

fn count_tags(all: &[Reference]) -> usize {
    all.iter().filter(|reference| reference.tag().is_some()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_tag_takes_the_digests() {
        let digest = Digest::of(b"");
        let parse = |text: &str| Reference::parse(text).unwrap();
        let (one, two, other) = (parse("a:1"), parse("a:2"), parse("b:1"));
        let by_digest = one.at(digest);
        let all = [one.clone(), two.clone(), other.clone(), by_digest.clone()];
        assert_eq!(names_leaving_with(&one, &all), std::slice::from_ref(&one));
        let all = [one.clone(), other, by_digest.clone()];
        assert_eq!(names_leaving_with(&one, &all), [one, by_digest]);
    }
}
