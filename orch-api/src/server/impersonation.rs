//! Acting as somebody else: the `Impersonate-*` headers, which `kubectl --as` sends.

use http::HeaderMap;
use orch_core::status::ApiError;

use super::dispatch::authorize;
use crate::authz::Attributes;
use crate::context::Context;
use crate::http::query::percent_decode;
use crate::user::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, UserInfo};

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// The user as whom a request is answered: whom the headers name, if `user` may act as them; else `user`.
pub(super) async fn effective(
    context: &Context,
    user: UserInfo,
    headers: &HeaderMap,
) -> Result<UserInfo, ApiError> {
    let Some(wanted) = wanted(headers)? else {
        return Ok(user);
    };
    for attributes in requests(&wanted) {
        authorize(context, &user, &attributes).await?;
    }
    Ok(complete(wanted))
}

/// Whom the headers name, exactly as they say it.
fn wanted(headers: &HeaderMap) -> Result<Option<UserInfo>, ApiError> {
    let mut wanted = UserInfo::default();
    for (name, value) in headers {
        let text = || -> Result<String, ApiError> {
            let text = value
                .to_str()
                .map_err(|_| ApiError::bad_request(format!("header {name} is not text")));
            Ok(text?.to_owned())
        };
        match (name.as_str(), name.as_str().strip_prefix(EXTRA)) {
            (_, Some(key)) => {
                let key = percent_decode(key, false).into_owned();
                wanted.extra.entry(key).or_default().push(text()?);
            }
            (USER, _) => wanted.name = text()?,
            (UID, _) => wanted.uid = text()?,
            (GROUP, _) => wanted.groups.push(text()?),
            _ => (),
        }
    }
    if !wanted.name.is_empty() {
        return Ok(Some(wanted));
    }
    if wanted == UserInfo::default() {
        return Ok(None);
    }
    Err(ApiError::internal(
        "requested impersonation of groups, a uid or extra values without impersonating a user",
    ))
}

/// What one has to be allowed to act as that user.
fn requests(wanted: &UserInfo) -> Vec<Attributes> {
    let request = |group: &str, resource: &str, name: &str| Attributes {
        verb: "impersonate".to_owned(),
        group: group.to_owned(),
        version: "v1".to_owned(),
        resource: resource.to_owned(),
        name: name.to_owned(),
        ..Attributes::default()
    };
    let mut requests = vec![match service_account(&wanted.name) {
        Some((namespace, name)) => Attributes {
            namespace: namespace.to_owned(),
            ..request("", "serviceaccounts", name)
        },
        None => request("", "users", &wanted.name),
    }];
    requests.extend(wanted.groups.iter().map(|group| request("", "groups", group)));
    for (key, values) in &wanted.extra {
        requests.extend(values.iter().map(|value| Attributes {
            subresource: key.clone(),
            ..request("authentication.k8s.io", "userextras", value)
        }));
    }
    if !wanted.uid.is_empty() {
        requests.push(request("authentication.k8s.io", "uids", &wanted.uid));
    }
    requests
}

fn service_account(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(SERVICE_ACCOUNT)?.split_once(':')
}

/// Adds the groups that follow from who it is.
fn complete(mut user: UserInfo) -> UserInfo {
    if let (true, Some((namespace, _))) = (user.groups.is_empty(), service_account(&user.name)) {
        user.groups = vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
        ];
    }
    let everybody = if user.name == ANONYMOUS {
        UNAUTHENTICATED
    } else {
        AUTHENTICATED
    };
    if !user.in_group(AUTHENTICATED) && !user.in_group(UNAUTHENTICATED) {
        user.groups.push(everybody.to_owned());
    }
    user
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().fold(HeaderMap::new(), |mut map, (name, value)| {
            let name: http::HeaderName = name.parse().expect("a header's name");
            map.append(name, http::HeaderValue::from_static(value));
            map
        })
    }

    #[test]
    fn every_part_of_the_identity_is_asked_for() {
        let all = headers(&[
            ("Impersonate-User", "jane"),
            ("Impersonate-Group", "a"),
            ("Impersonate-Group", "b"),
            ("Impersonate-Uid", "7"),
            ("Impersonate-Extra-Scopes%2fx", "view"),
        ]);
        let wanted = wanted(&all).unwrap().unwrap();
        let asked: Vec<_> = requests(&wanted)
            .into_iter()
            .map(|one| format!("{} {} {}", one.resource, one.subresource, one.name))
            .collect();
        assert_eq!(
            asked,
            [
                "users  jane",
                "groups  a",
                "groups  b",
                "userextras scopes/x view",
                "uids  7"
            ]
        );
        assert_eq!(complete(wanted).groups, ["a", "b", AUTHENTICATED]);
    }

    #[test]
    fn a_service_account_is_in_its_groups() {
        let account = headers(&[("Impersonate-User", "system:serviceaccount:a:b")]);
        let wanted = wanted(&account).unwrap().unwrap();
        let asked = requests(&wanted);
        assert_eq!(
            (
                asked[0].resource.as_str(),
                asked[0].namespace.as_str(),
                asked[0].name.as_str()
            ),
            ("serviceaccounts", "a", "b")
        );
        assert_eq!(
            complete(wanted).groups,
            [
                "system:serviceaccounts",
                "system:serviceaccounts:a",
                AUTHENTICATED
            ]
        );
    }

    #[test]
    fn groups_without_a_user_are_refused() {
        assert!(wanted(&headers(&[("Impersonate-Group", "a")])).is_err());
        assert!(wanted(&headers(&[])).unwrap().is_none());
    }
}
