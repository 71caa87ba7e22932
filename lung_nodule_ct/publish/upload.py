"""A publication, uploaded to the Hugging Face Hub by huggingface_hub: one commit that shows nothing until it is whole.

The token is huggingface_hub's affair (its login, or ``HF_TOKEN``); it never passes through here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from lung_nodule_ct.declaration.manifest import GENERATOR
from lung_nodule_ct.errors import PublishError

if TYPE_CHECKING:
    from lung_nodule_ct.publish.checks import Publication

# the root of the errors of the HTTP library that this huggingface_hub is made with
_HTTP_ERROR: Final = cast("type[Exception]", HfHubHTTPError.__bases__[0])
_REPLACED = ("data/**", "pictures/**", "preview.html", "audit.json", "croissant.json")


def upload(publication: Publication, repository: str, *, private: bool) -> str:
    """Upload a publication that nothing refuses; what an earlier one left in its folders is taken away.

    Args:
        publication: What to upload.
        repository: ``USER/REPO`` of a dataset; it is made where there is none.
        private: Whether nobody else shall see it.

    Returns:
        The address of the commit.

    Raises:
        PublishError: The repository is there and is public although ``private`` was asked for, or the Hub refuses.
    """
    api = HfApi(library_name="lung_nodule_ct", library_version=GENERATOR.split()[-1])
    try:
        api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        if private and not api.dataset_info(repository).private:
            raise PublishError(
                f"{repository} is there and is public, so nothing was uploaded",
                remedy="make it private in its settings, choose another name, or leave --private out",
            )
        commit = api.upload_folder(
            repo_id=repository,
            repo_type="dataset",
            folder_path=publication.build.folder,
            allow_patterns=list(publication.files),
            delete_patterns=list(_REPLACED),
            commit_message=f"Built with {GENERATOR}",
        )
    except PublishError:
        raise
    except LocalTokenNotFoundError as error:
        raise PublishError(
            "there is no token for the Hub", remedy="log in with `hf auth login`, or set HF_TOKEN"
        ) from error
    except (OSError, ValueError, _HTTP_ERROR) as error:
        raise PublishError(
            f"the Hub did not take {repository}: {error}",
            remedy="see that you may write there (`hf auth whoami`), then run this again; nothing shows half-uploaded",
        ) from error
    return str(commit.commit_url)
