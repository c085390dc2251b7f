"""A network of one's own, used by the class path ``pdesurrogate.cli.templates.model.network.TemplateModel``."""
