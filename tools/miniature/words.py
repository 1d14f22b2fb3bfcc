"""What the miniature knows: words, voices, and which of them were kept out of training.

Within a language no two words sound alike (espeak-ng's phonemes differ by more than one in short words), so that an
error says something about the engine and not about English. Every Finnish and Swedish word has its English one beside
it, which is in the English list: what it would take to learn the task `translate`, word by word.
"""

from __future__ import annotations

import zlib

_ENGLISH = """
yes well and but now today you they people children school work home house family mother father friend city
water music language book question answer science computer study one three four five six seven eight nine ten
month morning summer winter time food coffee good great small old happy important interesting different always
never often again north south red green blue not she have must with from about because this that these here very
many much little big long short young early first last next second every same right left open close start finish
begin stop come give take find think need like help learn teach speak listen ask understand remember forget
believe play sing dance drive travel sleep drink buy build move change bring keep leave meet call sister brother
woman child baby student doctor nurse farmer president police village country world street church hospital
library office kitchen garden window table chair room train ship airplane bicycle river forest mountain island
field flower grass earth stone iron paper milk fish egg apple orange sugar salt dog bird wolf black yellow brown
warm clean dirty beautiful ugly strong heavy hard easy difficult expensive rich poor hungry thirsty tired angry
afraid quiet loud empty full wide narrow spring autumn Monday Tuesday Wednesday Thursday Friday Saturday Sunday
January February April June July August September October November December yesterday tomorrow evening minute
hour history culture religion nature health business economy politics government peace freedom memory story
letter sentence number picture radio television telephone newspaper machine problem reason result example idea
plan project experience knowledge research interview university theory method theatre museum restaurant hotel
market price eleven twelve twenty hundred thousand million nose finger shoulder stomach blood voice sound dream
two we year week day night new teacher bread cheese horse cat cow bear white cold fast slow money bridge healthy
sick
"""

_FINNISH = """
kyllä=yes hyvä=good talo=house koti=home työ=work koulu=school kieli=language kysymys=question vastaus=answer
vuosi=year päivä=day talvi=winter kaupunki=city yksi=one kaksi=two kolme=three ja=and mutta=but nyt=now uusi=new
suuri=great ystävä=friend neljä=four seitsemän=seven kahdeksan=eight yhdeksän=nine kymmenen=ten sata=hundred
tuhat=thousand äiti=mother isä=father sisko=sister veli=brother nainen=woman lapsi=child opettaja=teacher
lääkäri=doctor ihminen=people maailma=world katu=street silta=bridge kirkko=church sairaala=hospital
kirjasto=library keittiö=kitchen puutarha=garden ikkuna=window pöytä=table tuoli=chair huone=room juna=train
laiva=ship lentokone=airplane joki=river metsä=forest kukka=flower paperi=paper leipä=bread juusto=cheese
maito=milk kala=fish omena=apple sokeri=sugar suola=salt kahvi=coffee hevonen=horse koira=dog kissa=cat
lehmä=cow lintu=bird karhu=bear musta=black valkoinen=white punainen=red vihreä=green sininen=blue
keltainen=yellow lämmin=warm kylmä=cold kaunis=beautiful vahva=strong nopea=fast hidas=slow helppo=easy
vaikea=difficult kallis=expensive terve=healthy sairas=sick nälkäinen=hungry hiljainen=quiet kevät=spring
kesä=summer syksy=autumn maanantai=Monday tiistai=Tuesday torstai=Thursday perjantai=Friday tammikuu=January
eilen=yesterday huomenna=tomorrow aamu=morning tunti=hour historia=history kulttuuri=culture terveys=health
rauha=peace vapaus=freedom tarina=story kirje=letter numero=number puhelin=telephone kone=machine
ongelma=problem syy=reason esimerkki=example tutkimus=research haastattelu=interview yliopisto=university
hinta=price kirja=book tiede=science musiikki=music aina=always usein=often pohjoinen=north etelä=south
tärkeä=important onnellinen=happy pieni=small vanha=old nuori=young
"""

_SWEDISH = """
ja=yes god=good hus=house hem=home arbete=work skola=school språk=language fråga=question svar=answer år=year
dag=day vinter=winter vatten=water stad=city ett=one två=two tre=three och=and men=but nu=now stor=great
vän=friend fyra=four sex=six åtta=eight nio=nine hundra=hundred tusen=thousand mamma=mother pappa=father
syster=sister bror=brother kvinna=woman barn=child lärare=teacher läkare=doctor människor=people landsby=village
land=country värld=world gata=street kyrka=church sjukhus=hospital bibliotek=library kök=kitchen fönster=window
bord=table rum=room tåg=train fartyg=ship flygplan=airplane cykel=bicycle flod=river skog=forest berg=mountain
blomma=flower papper=paper bröd=bread ost=cheese mjölk=milk fisk=fish äpple=apple socker=sugar salt=salt
kaffe=coffee häst=horse hund=dog katt=cat ko=cow fågel=bird björn=bear svart=black vit=white grön=green blå=blue
gul=yellow varm=warm vacker=beautiful stark=strong snabb=fast långsam=slow frisk=healthy sjuk=sick
hungrig=hungry tyst=quiet sommar=summer måndag=Monday tisdag=Tuesday torsdag=Thursday fredag=Friday
januari=January igår=yesterday imorgon=tomorrow morgon=morning kväll=evening timme=hour historia=history
kultur=culture hälsa=health fred=peace frihet=freedom berättelse=story brev=letter nummer=number bild=picture
telefon=telephone maskin=machine problem=problem orsak=reason exempel=example forskning=research
intervju=interview universitet=university pris=price bok=book vetenskap=science musik=music alltid=always
norr=north söder=south viktig=important lycklig=happy liten=small gammal=old ung=young
"""


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split("=") for pair in text.split())


TRANSLATIONS: dict[str, dict[str, str]] = {"fi": _pairs(_FINNISH), "sv": _pairs(_SWEDISH)}
"""Language -> word -> English word."""

WORDS: dict[str, tuple[str, ...]] = {
    "en": tuple(_ENGLISH.split()),
    "fi": tuple(TRANSLATIONS["fi"]),
    "sv": tuple(TRANSLATIONS["sv"]),
}

ACCENTS: dict[str, tuple[str, ...]] = {"en": ("en-us", "en"), "fi": ("fi",), "sv": ("sv",)}
"""espeak-ng's voices of each language; `en` is British."""

VARIANTS = (
    "", "m2", "m3", "m4", "m6", "m7", "m8", "f2", "f3", "f4", "f5", "Alex", "Andrea", "Andy", "Annie", "adam",
    "antonio", "aunty", "belinda", "benjamin", "boris", "caleb", "david", "ed", "edward", "Gene", "Henrique",
    "Hugo", "Jacky", "john", "Lee", "marcelo", "Mario", "max", "michel", "Mike", "pablo", "paul", "pedro", "quincy",
    "rob", "robert", "sandro", "shelby", "steph", "steph2", "travis", "victor", "zac", "grandma", "grandpa", "Denis",
    "Diogo", "Gene2", "Marco", "Nguyen", "Storm", "Tweaky", "anika", "announcer", "edward2", "gustave", "iven", "iven2",
    "iven3", "iven4", "kaukovalta", "klatt", "klatt2", "klatt3", "klatt4", "miguel", "norbert", "steph3", "whisper",
    "whisperf", "Demonic", "croak",
)  # fmt: skip
"""espeak-ng's voice variants (after the plus sign) that were heard in training."""

HELD_OUT_VARIANTS = ("m1", "m5", "f1", "linda", "Michael", "Alicia")
"""Variants never heard in training: for the evaluation."""


def held_out(sentence: str) -> bool:
    """Whether a sentence of three words or more was kept out of training: one in ten, by its checksum."""
    words = sentence.lower().rstrip(".").split()
    return len(words) >= 3 and zlib.crc32(" ".join(words).encode()) % 10 == 0


def written(words: list[str]) -> str:
    """The sentence as the miniature writes it: " Three children and two people."."""
    text = " ".join(words)
    return f" {text[0].upper()}{text[1:]}."
