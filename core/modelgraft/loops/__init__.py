"""What repeats inside a component: driven components, and the one token loop of every decoder. A tour: README.md beside this.

    driven     what a driven component is: a loop around tensor parts            (light)
    module     the module that holds the parts                                     (torch)
    settings   what the user chose: lengths, sampling, penalties, beams, stops    (light)
    tracing    for components that trace their graphs themselves: what a backend offers, and what they give
    decoder    what a decoder must offer: sessions that step, reorder, fork, rewind and close
    prefixes   sessions that are kept: a prompt is read from where it parts from an earlier one
    scoring    logits -> logits: penalties and forbidden tokens
    penalties  the rules among them that are about tokens that were said
    sequences  those that are about several tokens in a row
    sampling   logits -> tokens; `drawn_in_torch` does it on a device              (torch)
    beams      beam search
    reading    tokens -> text, piece by piece
    taps       what is noted of an answer while it is written
    loop       all of it together: `generate`

Where a session gives arrays of numpy, an answer is written without torch; what needs it (beams, likelihoods, taps, guides, drafts) imports
it when it is first asked for.
"""
