"""Search and pages of the web for tools: knows no process, no model and no client.

Each file uses only those below it:

    search     asks the configured provider, within limits, from a cache where it can
    read       reads one page as text: reach, decode, extract, cache
    ddgs_search  asks search engines without a key, through the `ddgs` package; best effort
    providers  search providers: their requests and answers
    page_text  text, title and links of a page's bytes
    reach      fetches a page from a public address only, hop by hop
    settings   web.toml: which provider, its key, what is allowed
    cache      answers and pages on disk for a while, one folder per API key
    limits     searches per minute and key; when a provider may be asked again
    frame      a third party's text as a tool's result, without template tokens
    citations  numbered marks of an answer, as annotations of each API
    hits       what a search finds, and why it finds nothing
    public     which addresses are public: those that pages may come from
"""
