"""What leaves the trust boundary, through one door. Pure: it returns entries, the store writes."""

from anabranch.privacy.door import Admission, ReleaseDoor

__all__ = ["Admission", "ReleaseDoor"]
