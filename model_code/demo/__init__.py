"""The embedded city: raw files of a fictional place, made from known latent fields.

`simulate.simulate` writes them; `docs/embedded-city.md` says what each file can know.
"""
