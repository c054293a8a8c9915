FROM python:3.11-slim

# A user without rights, who owns nothing but the store.
RUN useradd --create-home torchloop && install -d -o torchloop /store /data
WORKDIR /app

# The dependencies change more seldom than the code: a layer of their own. On a machine without a GPU, a CPU wheel of
# torch is a fraction of the size: name the index that holds it in PIP_EXTRA_INDEX_URL.
ARG PIP_EXTRA_INDEX_URL=
COPY pyproject.toml requirements.lock README.md LICENSE ./
RUN pip install --no-cache-dir --constraint requirements.lock .

COPY models models
COPY training training
COPY service service

USER torchloop
ENV TORCHLOOP_STORE=/store TORCHLOOP_DATA=/data TORCHLOOP_HOST=0.0.0.0 TORCHLOOP_LOG_FORMAT=json PYTHONUNBUFFERED=1
EXPOSE 8000
CMD ["python", "-m", "service"]
