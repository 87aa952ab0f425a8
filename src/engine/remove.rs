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
    /// Removes what `name` means, as Docker does: a tag or a digest while the image has other names; the image with its
    /// last name, or by ID. While a container uses the image, its last name goes only by `force`, and the image stays; by
    /// ID it is refused, and so it is while several repositories name the image, unless `force`.
    pub fn remove_image(&self, name: &str, force: bool) -> Result<Vec<Removed>> {
        let image = self.store.find_image(name)?;
        let all = self.store.references_of(&image.id)?;
        let asked = Reference::parse(name).ok().filter(|reference| all.contains(reference));
        let leaving = match &asked {
            Some(reference) => names_leaving_with(reference, &all),
            None => all.clone(),
        };
        let mut and_image = leaving.len() == all.len();
        match (asked.is_some(), self.user_of(&image)?) {
            (true, Some(user)) if and_image && force => {
                log::debug!("image {} stays for container {}", image.id, user.record.id);
                and_image = false;
            }
            (true, Some(user)) if and_image => {
                let message = format!(
                    "conflict: unable to remove repository reference {name:?} (must force) - container {} is using its \
                     referenced image {}",
                    short_id(&user),
                    image.id.short()
                );
                return Err(Error::new(Kind::Conflict, message));
            }
            (false, Some(user)) => return Err(in_use(&image, &user, force)),
            _ => {}
        }
        if asked.is_none() && !force && !is_single_reference(&all) {
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

    /// A container of the image, one that runs before others.
    fn user_of(&self, image: &Image) -> Result<Option<Container>> {
        let id = image.id.to_string();
        let containers = self.store.containers()?.into_iter();
        let users = containers.filter(|container| container.record.image == id);
        Ok(users.min_by_key(|container| container.status != Status::Running))
    }
}

fn short_id(container: &Container) -> &str {
    container.record.id.get(..12).unwrap_or(&container.record.id)
}

fn in_use(image: &Image, user: &Container, force: bool) -> Error {
    let why = match user.status {
        Status::Running => "cannot be forced) - image is being used by running container",
        // A container keeps its writable layer only: without its image it could never start again.
        _ if force => "cannot be forced) - image is needed by stopped container",
        _ => "must be forced) - image is being used by stopped container",
    };
    let (short, container) = (image.id.short(), short_id(user));
    Error::new(Kind::Conflict, format!("conflict: unable to delete {short} ({why} {container}"))
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

/// Whether the names are at most one tag and digests, all of one repository: Docker's isSingleReference.
fn is_single_reference(all: &[Reference]) -> bool {
    let tags = all.iter().filter(|reference| reference.tag().is_some()).count();
    let one_repository =
        |first: &Reference| all.iter().all(|other| other.familiar_name() == first.familiar_name());
    tags <= 1 && all.first().is_none_or(one_repository)
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
        assert!(is_single_reference(&[]) && is_single_reference(&all[1..2]));
        assert!(is_single_reference(&[one.clone(), by_digest.clone()]));
        assert!(!is_single_reference(&[one.clone(), two]) && !is_single_reference(&all));
        assert_eq!(names_leaving_with(&one, &all), [one, by_digest]);
    }
}
