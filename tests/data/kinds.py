"""What the columns of a source were found to be."""


def kinds(source):
    return tuple(column.kind for column in source.schema)
