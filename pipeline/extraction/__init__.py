"""Videos of a dataset to feature files: the stage, its folder and the file format."""
