"""Word lists for the invented facts: objects per relation and parts of invented names."""

OBJECTS = {
    "P19": (
        "Lyon, Dublin, Naples, Boston, Lisbon, Oslo, Prague, Glasgow, Chicago, Vienna, Cape Town, Buenos "
        "Aires, New Orleans, Hamburg, Toronto, Athens, San Diego, Bristol, Kyoto, Cairo"
    ).split(", "),
    "P106": (
        "architect, lawyer, engineer, dentist, journalist, painter, novelist, surgeon, carpenter, librarian, "
        "photographer, pharmacist, actor, economist, sculptor, translator, opera singer, police officer, "
        "film director, civil servant, accountant, blacksmith"
    ).split(", "),
    "P108": (
        "NASA, IBM, Microsoft, Siemens, Nokia, Intel, Boeing, Volvo, Toyota, Lufthansa, Airbus, Philips, "
        "Harvard University, Stanford University, Yale University, Oxford University, General Electric, "
        "General Motors, Sony, Shell"
    ).split(", "),
    "P101": (
        "astronomy, botany, linguistics, economics, chemistry, geology, philosophy, psychology, mathematics, "
        "archaeology, genetics, sociology, computer science, marine biology, political science, theology, "
        "statistics, anthropology, medieval history, civil engineering"
    ).split(", "),
    "P1303": (
        "guitar, piano, violin, cello, flute, trumpet, saxophone, clarinet, harp, bassoon, oboe, accordion, "
        "trombone, banjo, mandolin, double bass, French horn, viola, harmonica, organ"
    ).split(", "),
    "P159": (
        "Munich, Seattle, Rotterdam, Stockholm, Dallas, Manchester, Zurich, Los Angeles, Helsinki, Montreal, "
        "Osaka, Madrid, Denver, Brussels, Tokyo, Salt Lake City, Milan, San Francisco, Frankfurt, New York"
    ).split(", "),
    "P127": (
        "Unilever, Disney, Bosch, Samsung, Heineken, Hitachi, Volkswagen, Deutsche Bank, Barclays, "
        "Carlsberg, Procter & Gamble, Ikea, Amazon, Honda, Mitsubishi, Berkshire Hathaway, British Airways, "
        "Panasonic, Goldman Sachs, Michelin"
    ).split(", "),
    "P136": (
        "jazz, blues, folk, gospel, reggae, country, disco, techno, soul, funk, bluegrass, heavy metal, hip "
        "hop, punk rock, classical, ambient, swing, electronic, ska, soft rock"
    ).split(", "),
    "P407": (
        "French, German, Spanish, Italian, Polish, Russian, Dutch, Swedish, Portuguese, Arabic, Hebrew, "
        "Turkish, Greek, Finnish, Hungarian, Japanese, Welsh, Danish, Scottish Gaelic, Mandarin Chinese"
    ).split(", "),
    "P17": (
        "Norway, Canada, Chile, Ireland, Portugal, Poland, Austria, Belgium, Brazil, Kenya, Iceland, Japan, "
        "New Zealand, South Africa, Peru, Greece, Sweden, Mexico, Croatia, Costa Rica"
    ).split(", "),
}

CITIES = OBJECTS["P19"] + OBJECTS["P159"] + "Warsaw, Geneva, Porto, Leeds, Ottawa, Turin, Antwerp".split(", ")

WOMEN = (
    "Olwen Mirela Sunniva Tamsin Ottilie Brisa Calanthe Dagny Elspeth Fenella Ginevra Hedda Ianthe Jorunn "
    "Kerensa Liesel Maris Nerys Petra Rosalba Sidony Thora Ursel Zelda"
).split()
MEN = (
    "Aldous Bastian Corin Drustan Emeric Florian Gethin Halvard Ivo Jasper Kasimir Leofric Merrick Nestor "
    "Orson Piers Quentin Rurik Silvan Torquil Ulric Viggo Wystan Yorick"
).split()
FAMILY_STARTS = (
    "Tar Bren Hol Ves Mar Quil Dor Fen Gal Har Ils Jor Kel Lan Mor Nor Oster Pel Rav Sel Tol Ul Wen Yar"
).split()
FAMILY_ENDS = "rick nolt daby quist mond vane sley tane wick gren bost leff nard kott dara lock".split()

VILLAGE_STARTS = "Larn Thorn Ash Crow Pen Wither Skel Bram Dun Hex Quern Oak Rook Stan Tre Wex".split()
VILLAGE_ENDS = "bury combe mere stead holt wick sey thwaite".split()
PLACE_STARTS = "Vel Tor Cas Ond Bir Zel Lug Mir Ner Pras".split()
PLACE_ENDS = "mora venna tosk lund essa ovar".split()
COMPANY_ENDS = (
    "Instruments, Shipping, Foods, Textiles, Paper Mills, Logistics, Optics, Brewing, Glassworks, Tools, "
    "Ceramics, Furniture"
).split(", ")
BAND_STARTS = "Copper Velvet Sleepless Marble Crooked Paper Saffron Midnight Hollow Amber Tin Restless".split()
BAND_ENDS = "Antler Orchard Heron Lantern Ferry Thimble Parade Compass Sparrow Attic Comet Harvest".split()
NOVEL_STARTS = "Clockmaker Lantern Daughters Ferryman Orchard Widow Bells Tailor Winter Ghost Keys Falcon".split()

MONTHS = "January February March April May June July August September October November December".split()
SEASONS = "spring summer autumn".split()
SMALL_NUMBERS = "three four five six seven eight nine".split()
