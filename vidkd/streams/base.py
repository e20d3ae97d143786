"""What a stream is: what snippets are made of, and everything that depends on that."""

from __future__ import annotations


class Stream:
    """What an encoder sees of a video, such as RGB frames, optical flow or poses.

    A class of its own for each stream; the table ``vidkd.streams.STREAMS`` holds one object of
    each. On the command line and in files a stream is called by its name, as the ``modality``.

    Attributes:
        name: of the stream, as ``--modality`` and files call it.
        label: in tables and figures.
        artefact: folder of the cache that must hold something of the video first, such as
            ``flow``; None for streams that are made of the video itself.
        command: which writes that folder, such as ``extract-flow``.
        from_rgb: whether RGB frames alone, as they are decoded, give its rows; students and
            teachers of such streams can be run by ``detect``.
        trained_by_recipe: whether a recipe trains the encoder on its training videos, since none
            comes trained.
        crops: whether ``--short-side`` and ``--crop`` say how large its pictures are.
        encoder_modality: modality on the cards of the encoders that it takes.
    """

    name: str
    label: str
    artefact: str | None = None
    command: str | None = None
    from_rgb: bool = False
    trained_by_recipe: bool = False
    crops: bool = True
    encoder_modality: str = "rgb"

    def folder(self, encoder: str) -> str:
        """Return the folder below ``CACHE/features`` of the features an encoder makes of it.

        An encoder that was made for this stream names the folder; of one that it shares with
        another stream, the folder is called ``ENCODER.STREAM``.
        """
        return encoder if self.encoder_modality == self.name else f"{encoder}.{self.name}"

    def encoder(self, folder: str) -> str:
        """Return the encoder whose features of this stream lie in a folder; undoes ``folder``."""
        return (
            folder if self.encoder_modality == self.name else folder.removesuffix(f".{self.name}")
        )
