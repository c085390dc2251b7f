"""What the Hugging Face Hub says of a file: where its bytes are, how many, and their SHA-256."""

from __future__ import annotations

import re
from typing import NamedTuple

from pdesurrogate.data.downloads.fetch import Patience
from pdesurrogate.data.downloads.registry import DIGITS, Digest, DownloadError, HubFile


class OutOfReachError(DownloadError):
    """The Hub did not answer."""


class HubAnswer(NamedTuple):
    """Where and what a file is.

    Attributes:
        url: of the commit that the revision means now, so that it cannot change on the way.
        bytes: ``None`` where not stated.
        digest: of large files alone; small ones have another kind there.
    """

    url: str
    bytes: int | None
    digest: Digest | None


def ask_hub(hub: HubFile, *, patience: Patience | None = None, endpoint: str | None = None) -> HubAnswer:
    """Ask the Hub about a file of a public data set; no account is used and nothing is downloaded.

    Args:
        hub: the file.
        patience: attempts and waits.
        endpoint: of another Hub than the public one.

    Raises:
        DownloadError: if ``huggingface_hub`` is not installed, there is no such file, or it is not public;
            `OutOfReachError` if the Hub does not answer.
    """
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
    except ImportError as error:
        raise DownloadError(
            f"Expected huggingface_hub for {hub.file} of {hub.repo} but it is not installed: "
            "pip install 'pdesurrogate[hub]'."
        ) from error
    patience = Patience() if patience is None else patience
    url = hf_hub_url(hub.repo, hub.file, repo_type="dataset", revision=hub.revision, endpoint=endpoint)
    waits = patience.waits()
    while True:
        try:
            found = get_hf_file_metadata(url, token=False, timeout=patience.timeout, endpoint=endpoint)
            break
        except GatedRepoError as error:
            raise DownloadError(
                f"Expected a public data set but {hub.repo} asks for an account; get {hub.file} by hand, as the card "
                "says."
            ) from error
        except (EntryNotFoundError, RepositoryNotFoundError) as error:
            raise DownloadError(
                f"Expected {hub.file} in the data set {hub.repo} at {hub.revision} but the Hub has none there; "
                "the card says where the set comes from."
            ) from error
        except Exception as error:  # The Hub's client changed its HTTP library twice: these errors share no base.
            status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
            wait = None if status is not None and status < 500 and status != 429 else next(waits, None)
            if wait is None:
                raise OutOfReachError(
                    f"Expected an answer about {hub.file} of {hub.repo} but the Hub is out of reach: "
                    f"{type(error).__name__}: {error}."
                ) from error
            if patience.tell is not None:
                patience.tell(f"the Hub is out of reach; next attempt in {wait:.0f} s")
            patience.sleep(wait)
    revision = found.commit_hash or hub.revision
    large = re.fullmatch(f"[0-9a-f]{{{DIGITS['sha256']}}}", found.etag or "")
    return HubAnswer(
        hf_hub_url(hub.repo, hub.file, repo_type="dataset", revision=revision, endpoint=endpoint),
        found.size,
        Digest("sha256", large[0], f"the Hub at {revision}") if large else None,
    )
