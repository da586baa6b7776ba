"""Who may reach the service: a bind beyond this machine needs a key."""

from __future__ import annotations

from forebay.errors import ConfigurationError
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


def _has_keys(settings: Settings) -> bool:
    if settings.api_keys or settings.jwt_jwks_url is not None:
        return True
    if settings.api_keys_file is not None and read_key_file(settings.api_keys_file):
        return True
    return has_keys(settings.data_root)
