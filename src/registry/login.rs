//! Login: whether a registry takes somebody for who they say they are. Nothing is stored here.

use super::client::{Access, Client, Place, Question};
use super::failure;
use crate::error::{Error, Kind, Result};
use crate::reference::Reference;

impl Client {
    /// Shows `registry` (`host[:port]`, or `docker.io`) the credentials that the options hold for it. On success the
    /// registry took them, or asks for none; the result is the identity token that its token service wants to see from
    /// now on in place of the password, if it gave one.
    ///
    /// `Kind::Unauthorized`: it did not take them.
    pub fn login(&self, registry: &str) -> Result<Option<String>> {
        // Any repository will do: none is named in what is asked.
        let reference = Reference::parse(&format!("{registry}/login"))?;
        if reference.registry() != registry {
            let message =
                format!("{registry:?} is no registry: write host:port, or a host with a dot");
            return Err(Error::new(Kind::Invalid, message));
        }
        let doing = format!("login to {registry}");
        let question = Question {
            place: Place::Base,
            access: Access::Login,
            ..Question::get(&reference, String::new(), Vec::new(), doing)
        };
        self.persist(None, &mut |retry| {
            let mut answer = self.ask_with(&question, None)?;
            let mut identity_token = None;
            if answer.status() == 401 && answer.is_home {
                let granted = self.grant(&question, answer, retry)?;
                answer = self.ask_with(&question, Some(&granted.authorization))?;
                identity_token = granted.identity_token;
            }
            answer.tell(retry);
            match answer.status() {
                200 => Ok(identity_token),
                401 => {
                    let message = format!(
                        "login attempt to {} failed with status: 401 Unauthorized",
                        answer.url
                    );
                    Err(Error::new(Kind::Unauthorized, message))
                }
                _ => Err(failure::of_status(answer, &question)),
            }
        })
    }
}
