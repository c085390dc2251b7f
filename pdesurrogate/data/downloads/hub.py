"""What the Hugging Face Hub says of a file: where its bytes are, how many, and their SHA-256."""

from __future__ import annotations

import re
from typing import NamedTuple

from pdesurrogate.data.downloads.registry import DIGITS, Digest, DownloadError, HubFile, OutOfReachError


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


def ask_hub(hub: HubFile, *, timeout: float = 10.0, endpoint: str | None = None) -> HubAnswer:
    """Ask the Hub once about a file of a public data set; no account is used and nothing is downloaded.

    Args:
        hub: the file.
        timeout: in seconds.
        endpoint: of another Hub than the public one.

    Raises:
        DownloadError: if ``huggingface_hub`` is not installed, there is no such file, or it is not public;
            `OutOfReachError` if the Hub does not answer.
    """
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError
    except ImportError as error:
        raise DownloadError(
            f"Expected huggingface_hub, which asks the Hub about {hub.repo}, but it is not installed, so that no exact "
            "sizes and no digests could be asked for: pip install 'pdesurrogate[hub]'."
        ) from error
    url = hf_hub_url(hub.repo, hub.file, repo_type="dataset", revision=hub.revision, endpoint=endpoint)
    try:
        found = get_hf_file_metadata(url, token=False, timeout=timeout, endpoint=endpoint)
    except GatedRepoError as error:
        raise DownloadError(
            f"Expected a public data set but {hub.repo} asks for an account; get {hub.file} by hand, as the card says."
        ) from error
    except (EntryNotFoundError, RepositoryNotFoundError) as error:
        raise DownloadError(
            f"Expected {hub.file} in the data set {hub.repo} at {hub.revision} but the Hub has none there; "
            "the card says where the set comes from."
        ) from error
    except Exception as error:  # The Hub's client changed its HTTP library twice: these errors share no base.
        raise OutOfReachError(
            f"Expected the Hub to answer about {hub.repo} but no exact sizes and no digests could be asked for "
            f"({type(error).__name__}: {error}). Try again later."
        ) from error
    revision = found.commit_hash or hub.revision
    large = re.fullmatch(f"[0-9a-f]{{{DIGITS['sha256']}}}", found.etag or "")
    return HubAnswer(
        hf_hub_url(hub.repo, hub.file, repo_type="dataset", revision=revision, endpoint=endpoint),
        found.size,
        Digest("sha256", large[0], f"the Hub at {revision}") if large else None,
    )
