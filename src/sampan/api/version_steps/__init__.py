"""What API versions changed: answers down to the version that was asked for, requests up to the newest.

One small function a change, in the tables that `sampan.api.versions` applies.
Source: engine-api-changelog.md; dockerd 20.10 (API 1.12 to 1.41) asked.
"""
