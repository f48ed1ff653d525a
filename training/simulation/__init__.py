"""`mad simulate`: strategies side by side on labelled images, with people who know the truth."""
