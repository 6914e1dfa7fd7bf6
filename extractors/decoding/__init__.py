"""Video files to frames in order, with the time of each: readers, and the processes they run in."""
