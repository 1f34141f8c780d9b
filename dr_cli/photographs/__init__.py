"""One photograph: opened, its field found, cropped, judged; and crops kept on disk."""
