"""Who may reach the service: a bind beyond this machine needs a key."""

from __future__ import annotations

from forebay.errors import ConfigurationError, PermissionDenied
from forebay.settings import Settings, is_loopback
from forebay.tenants.key_store import has_keys
from forebay.tenants.static_keys import read_key_file


def check_exposure(settings: Settings) -> None:
    """Refuse a non-loopback bind, of the service or of the admin API, where there is no key: in the settings, in the
    data file, or from an identity provider. `insecure_open` allows it.

    Raises ConfigurationError, also when `api_keys_file` or the data file cannot be read.
    """
    exposed = [host for host in (settings.host, settings.admin_host) if not is_loopback(host)]
    if not exposed or settings.insecure_open or _has_keys(settings):
        return
    raise ConfigurationError(
        f"Binding to {exposed[0] or 'every address'} would open the model to the network without a key. "
        "Make one with `forebay keys create`, set FOREBAY_API_KEYS or --api-keys-file, bind to 127.0.0.1, or say "
        "--insecure-open."
    )


def check_host(settings: Settings, host: str) -> None:
    """Where this machine alone is let in without a key, only names that mean it count in `Host`: a page of any site can
    have its own name point here, and the browser then takes our answers for the site's (CVE-2024-28224).

    Raises PermissionDenied. Beyond loopback nothing is checked.
    """
    if not settings.on_loopback:
        return
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    name = name.lower().removesuffix(".")
    if is_loopback(name) or name.endswith(".localhost") or name in map(str.lower, settings.allowed_hosts):
        return
    raise PermissionDenied(
        "Without a key only this machine is answered, under its own names: ask at localhost or 127.0.0.1, or have "
        "FOREBAY_ALLOWED_HOSTS name the host that you asked for."
    )


def _has_keys(settings: Settings) -> bool:
    if settings.api_keys or settings.jwt_jwks_url is not None:
        return True
    if settings.api_keys_file is not None and read_key_file(settings.api_keys_file):
        return True
    return has_keys(settings.data_root)
