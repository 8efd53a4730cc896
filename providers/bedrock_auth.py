"""Amazon's regions and credentials: where a call to Bedrock goes, and how it is signed (Signature Version 4).

https://docs.aws.amazon.com/bedrock/latest/userguide/api-keys.html and …/general/latest/gr/bedrock.html (read 2026-11)

- The region is `aws_region_name`, else that of the model, if it is an ARN; else AWS_REGION_NAME, AWS_REGION or
  AWS_DEFAULT_REGION, else that of the profile.
- A call with a key (`api_key`, or AWS_BEARER_TOKEN_BEDROCK) is not signed. Others are, with the caller's
  `aws_access_key_id`, `aws_secret_access_key` and `aws_session_token`; else with what botocore's own chain finds: the
  environment, the profile (`aws_profile_name` or AWS_PROFILE), roles, the machine's own credentials.
- Such credentials are refreshed before they expire; the request for it, each hour or so, is not asynchronous.
- botocore is needed for signing, and for what is written in a profile.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
import threading
from collections.abc import Mapping
from typing import Any, NoReturn

from ..core.errors import MissingPackage

SERVICE = "bedrock"
"""What the signature is for. The host says "bedrock-runtime"."""

REGIONS = ("AWS_REGION_NAME", "AWS_REGION", "AWS_DEFAULT_REGION")
IN_ARN = re.compile(r"arn:aws[\w-]*:[\w-]+:([a-z0-9-]+):")
IN_HOST = re.compile(r"\bbedrock-runtime(?:-fips)?\.([a-z]{2,}-[a-z0-9-]+-\d+)\.")
DOMAINS = (("cn-", "amazonaws.com.cn"), ("eusc-", "amazonaws.eu"), ("", "amazonaws.com"))
"""By how a region begins."""

KEY, SECRET, TOKEN = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"

SIGNED = re.compile("content-type|x-amz-.*", re.IGNORECASE)
"""Headers that are signed beside `host`. Others may be changed on their way."""


def base_url(arguments: Mapping[str, Any], model: str) -> str:
    """Where a call with these arguments goes; empty if no region is known."""
    arn = IN_ARN.search(model)
    region = (
        arguments.get("aws_region_name") or (arn and arn[1]) or usual_region(arguments.get("aws_profile_name") or "")
    )
    if not region:
        return ""
    domain = next(domain for start, domain in DOMAINS if region.startswith(start))
    return f"https://bedrock-runtime.{region}.{domain}"


def usual_region(profile: str) -> str | None:
    """The region of the environment, or of a profile; "" is the usual profile."""
    named = next((region for name in REGIONS if (region := os.environ.get(name))), None)
    return named or _region_of_profile(profile, os.environ.get("AWS_PROFILE"), os.environ.get("AWS_CONFIG_FILE"))


@functools.lru_cache(maxsize=64)
def _region_of_profile(profile: str, *environment: str | None) -> str | None:
    """What botocore reads in the user's files; None without botocore. `environment` is what else it depends on."""
    try:
        region: str | None = session(profile).get_config_variable("region")
    except MissingPackage:
        return None
    except _package("botocore.exceptions").BotoCoreError as error:
        raise _invalid(f"The AWS profile cannot be read: {error}") from error
    return region


class AwsSigner:
    """Signs calls for one identity."""

    def __init__(self, identity: Mapping[str, str]) -> None:
        self._identity = dict(identity)
        self._auth, self._request = _package("botocore.auth"), _package("botocore.awsrequest")
        self.secrets: tuple[str, ...] = ()
        """What the last signature was made with: the vendor repeats a token when it refuses one."""
        self._lock = threading.Lock()
        self._found: dict[str | None, Any] = {}
        """Credentials that botocore's chain has found, by the profile of the environment."""

    def __call__(self, url: str, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
        """The headers that sign this call. One that the caller has authorised in another way is left alone."""
        if any(name.lower() == "authorization" for name in headers):
            return {}
        signed = {name: value for name, value in headers.items() if SIGNED.fullmatch(name)}
        request = self._request.AWSRequest("POST", url, headers=signed, data=body)
        credentials = self._credentials()
        self.secrets = tuple(secret for secret in (credentials.secret_key, credentials.token) if secret)
        self._auth.SigV4Auth(credentials, SERVICE, self._region(url)).add_auth(request)
        return {name: value for name, value in request.headers.items() if name not in signed}

    def _region(self, url: str) -> str:
        """The region to sign for. An address that is Bedrock's own says it."""
        host = IN_HOST.search(url)
        found = self._identity.get("aws_region_name") or (host and host[1]) or usual_region(self._profile)
        return found or no_region()

    @property
    def _profile(self) -> str:
        return self._identity.get("aws_profile_name", "")

    def _credentials(self) -> Any:
        """Credentials that are valid now."""
        key, secret = self._identity.get("aws_access_key_id"), self._identity.get("aws_secret_access_key")
        if key or secret:
            if not (key and secret):
                raise _invalid("aws_access_key_id and aws_secret_access_key belong together; only one was given.")
            return _credentials(key, secret, self._identity.get("aws_session_token"))
        environment = os.environ
        if not self._profile and environment.get(KEY) and environment.get(SECRET):
            # First in botocore's chain too. Read each time: who renews them there does not make a new process.
            return _credentials(environment[KEY], environment[SECRET], environment.get(TOKEN))
        return self._by_chain()

    def _by_chain(self) -> Any:
        exceptions = _package("botocore.exceptions")
        usual = os.environ.get("AWS_PROFILE")
        with self._lock:
            try:
                if self._found.get(usual) is None:
                    self._found[usual] = session(self._profile).get_credentials()
                found = self._found[usual]
                return no_credentials() if found is None else found.get_frozen_credentials()
            except (exceptions.BotoCoreError, exceptions.ClientError) as error:
                no_credentials(error)


def session(profile: str) -> Any:
    """A session of botocore's. Raises `MissingPackage`."""
    return _package("botocore.session").Session(profile=profile or None)


def _credentials(key: str, secret: str, token: str | None) -> Any:
    return _package("botocore.credentials").ReadOnlyCredentials(key, secret, token)


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingPackage("Amazon Bedrock without an api_key", "botocore", "rejoinder[bedrock]") from None


def no_region() -> NoReturn:
    raise _invalid("No region for Amazon Bedrock. Pass aws_region_name=, or set AWS_REGION.")


def no_credentials(error: Exception | None = None) -> NoReturn:
    from ..core.api_errors import MissingAPIKey, local_error

    said = f" ({error})" if error else ""
    message = (
        f"No credentials for Amazon Bedrock{said}. Pass aws_access_key_id= and aws_secret_access_key=, or api_key=, "
        "or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or AWS_BEARER_TOKEN_BEDROCK."
    )
    raise local_error(MissingAPIKey, message, provider="bedrock") from error


def _invalid(message: str) -> Exception:
    from ..core.api_errors import invalid

    return invalid(message, provider="bedrock")
