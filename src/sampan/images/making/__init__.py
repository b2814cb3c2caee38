"""Images that are made here: imported trees and committed containers, and `--change`."""
