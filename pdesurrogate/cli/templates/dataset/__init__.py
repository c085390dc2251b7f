"""A data set of one's own, used by the class path ``pdesurrogate.cli.templates.dataset.adapter.TemplateDataset``."""
