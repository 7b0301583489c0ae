"""Published datasets in the forms that other tools take; one file per kind of form."""
