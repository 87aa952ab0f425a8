//! What refers to a manifest (OCI distribution spec 1.1, "Listing Referrers" and "Pushing Manifests with Subject").
//!
//! A registry that knows of subjects keeps the list itself. In one that does not, the list is an index under the tag
//! `sha256-<hex of the subject>`, and pushers keep it ("Referrers Tag Schema"). No registry compares before it writes, so a
//! pusher reads the list once more, and adds its entry again if another's write has come between. One that was faster than
//! that look is not noticed; what it cost is an entry in a list, and a push of the same brings that back.

use ureq::http::Method;

use super::client::{Answer, Client, Content, Place, Question};
use super::resolve::Fetched;
use super::upload::Push;
use super::{failure, location};
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::json::MAX_DOCUMENT_BYTES;
use crate::oci::artifact::list_with;
use crate::oci::manifest::{Descriptor, OCI_INDEX, OCI_MANIFEST, parse_index};
use crate::reference::Reference;

/// Pages of one list; registries give 50 entries or more on each.
const MAX_PAGES: usize = 20;
/// Looks at a list under a tag, while others write it too, before giving up.
const MAX_LIST_LOOKS: usize = 5;

impl Client {
    /// What refers to the manifest `subject` in the repository, as far as it is of `artifact_type`. Nothing is an answer,
    /// too; an error is a list that could not be had or read.
    pub fn referrers(
        &self,
        reference: &Reference,
        subject: &Digest,
        artifact_type: &str,
    ) -> Result<Vec<Descriptor>> {
        let doing = format!("list what refers to {subject} in {}", reference.familiar_name());
        let mut found = match self.kept_list(reference, subject, artifact_type, &doing)? {
            Some(found) => found,
            None => match self.tagged_list(&reference.tagged(&tag(subject)))? {
                Some(list) => parse_index(&list.bytes, &doing)?,
                None => Vec::new(),
            },
        };
        found.retain(|entry| entry.artifact_type.as_deref() == Some(artifact_type));
        Ok(found)
    }

    /// The registry's own list; `None` if it keeps none.
    fn kept_list(
        &self,
        reference: &Reference,
        subject: &Digest,
        artifact_type: &str,
        doing: &str,
    ) -> Result<Option<Vec<Descriptor>>> {
        let path = format!("referrers/{subject}?artifactType={artifact_type}");
        let headers = vec![("accept", OCI_INDEX.to_string())];
        let mut question = Question::get(reference, path, headers, doing.to_string());
        let mut found = Vec::new();
        for page in 0..MAX_PAGES {
            let fetched = self.persist(None, &mut |retry| {
                let answer = self.ask_once(&question, retry)?;
                let next = next_page(&answer);
                let bytes = failure::read_limited(answer, MAX_DOCUMENT_BYTES as u64, doing)?;
                Ok((bytes, next))
            });
            let (bytes, next) = match fetched {
                // 404 as the spec has it; others say 400 or 405.
                Err(e) if page == 0 && matches!(e.kind(), Kind::NotFound | Kind::Invalid) => {
                    log::debug!("{e}");
                    return Ok(None);
                }
                fetched => fetched?,
            };
            found.append(&mut parse_index(&bytes, doing)?);
            let Some(Place::Url { url, home }) = next else { break };
            question.place = Place::Url { url, home };
        }
        Ok(Some(found))
    }

    /// The list that pushers keep; `None` if nobody has begun it.
    fn tagged_list(&self, list: &Reference) -> Result<Option<Fetched>> {
        match self.document(list, &format!("list {}", list.familiar())) {
            Err(e) if e.kind() == Kind::NotFound => Ok(None),
            fetched => fetched.map(Some),
        }
    }
}

impl Push<'_> {
    /// Stores the manifest of an artifact under its digest, and sees to it that whoever asks for what refers to `subject` is
    /// told of it. `entry` is what a list says of it. All that it names is there.
    pub fn artifact(&self, document: &[u8], entry: &Descriptor, subject: &Digest) -> Result<()> {
        let answer = self.put_manifest(&entry.digest, OCI_MANIFEST, document)?;
        let is_listed = answer.header("oci-subject").is_some();
        answer.drain();
        if is_listed {
            return Ok(());
        }
        let (tag, list) = (tag(subject), self.reference.tagged(&tag(subject)));
        let what = format!("list {}", list.familiar());
        for _ in 0..MAX_LIST_LOOKS {
            let known = self.client.tagged_list(&list)?;
            let Some(new) = list_with(known.as_ref().map(|list| &*list.bytes), entry, &what)?
            else {
                return Ok(());
            };
            self.put_manifest(&tag, OCI_INDEX, new.as_bytes())?.drain();
        }
        let message = format!("write {what}: others wrote it each time as well: try again");
        Err(Error::new(Kind::Conflict, message))
    }

    /// Stores a manifest or an index under a tag or its digest.
    pub(super) fn put_manifest(&self, key: &str, media_type: &str, bytes: &[u8]) -> Result<Answer> {
        let place = Place::Path(format!("manifests/{key}"));
        let mut question = self.question(Method::PUT, place, "put manifest", &key);
        question.headers.push(("content-type", media_type.to_string()));
        question.content = Content::Bytes(bytes);
        question.accepts = &[200, 201, 202];
        self.persist(&question)
    }
}

/// The tag under which the list is kept of what refers to `subject`.
fn tag(subject: &Digest) -> String {
    format!("sha256-{}", subject.hex())
}

/// Where a list goes on, at the registry itself: `Link: <url>; rel="next"` (RFC 8288).
fn next_page(answer: &Answer) -> Option<Place> {
    let (url, relation) = answer.header("link")?.trim().strip_prefix('<')?.split_once('>')?;
    let url = location::follow(&answer.url, url);
    let home = answer.origin.clone();
    let is_its_own = answer.is_home && location::is_same_origin(&url, &home);
    (is_its_own && relation.contains("next")).then_some(Place::Url { url, home })
}
